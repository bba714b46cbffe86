// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Credit, Row} from "./Batch.sol";
import {IEscrow} from "./IEscrow.sol";
import {IIdentityGate} from "./IIdentityGate.sol";
import {IProcessorRegistry} from "./IProcessorRegistry.sol";
import {Mandate} from "./Messages.sol";

/// @title What owners have permitted
/// @notice Opens, revokes and closes mandates, and is the only place where a mandate's ledger position moves. Its own
/// checks hold whatever a proof says: no debit without the agent's signature over exactly that position, none above the
/// budget, none by another caller than the mandate's processor through the settlement contract, none after `closesAt`.
/// Single payments of the direct rail come from the direct settlement contract, which checks their signatures; cap, payee
/// list and budget are checked here, and they leave the ledger position alone.
///
/// A mandate is Open until it is Revoked by its owner or Expired by time; after the settlement windows anyone may close
/// it, and what is left goes back to the owner's free balance. A processor that leaves receipts unsettled loses the
/// mandate: it goes to Fallback, where only payees' claims debit it. Amounts are in units, times in Unix seconds.
interface IMandateRegistry {
    /// @notice A mandate's life. Expired follows from the time alone, no call is needed.
    enum State {
        None,
        Open,
        Revoked,
        Expired,
        Closed,
        Fallback
    }

    /// @notice The time spans of the protocol, in seconds, fixed at deployment within hard ranges.
    struct Windows {
        /// From a payment to the settlement its receipt promises: 10 min … 24 h.
        uint40 settleBy;
        /// From that promise to a penalty: 30 min … 6 h.
        uint40 grace;
        /// For the processor to answer a revocation: 15 min … 6 h.
        uint40 acknowledge;
        /// For the processor to answer a claim or a challenge: 6 … 24 h.
        uint40 cure;
        /// For payees to file claims: 48 h … 14 d, so at least twice `cure`.
        uint40 claim;
    }

    /// @notice Where a mandate's ledger stands on chain: the next batch starts from here.
    struct Position {
        /// Hash of the last full page, or the genesis.
        uint256 base;
        /// Payments settled so far.
        uint64 seq;
        /// Their total.
        uint64 spent;
        uint256 policyRoot;
    }

    /// @notice The contracts that this one works with, fixed at deployment.
    struct Links {
        IEscrow escrow;
        address settlement;
        address direct;
        address claims;
        IProcessorRegistry processors;
        IIdentityGate gate;
    }

    /// @notice What the processor acknowledged of a revoked mandate.
    struct Acknowledgement {
        bool acknowledged;
        /// The last payment that may still debit the owner.
        uint64 seq;
        /// The most that the direct rail may have spent in all.
        uint64 directSpent;
        /// The head at `seq`.
        bytes32 head;
    }

    /// @notice All that the registry keeps of a mandate.
    struct MandateRecord {
        State state;
        address owner;
        address token;
        address processor;
        uint64 budget;
        uint40 paymentCap;
        uint40 validUntil;
        /// When the owner revoked it, or 0.
        uint40 revokedAt;
        /// The last payment that the revocation meant to allow.
        uint64 revokedAfterSeq;
        /// From this second on it can be closed and no longer settled.
        uint40 closesAt;
        uint64 seq;
        uint64 spent;
        /// Spent by single payments outside the ledger and by claims; counts against the budget.
        uint64 directSpent;
        /// Units that pending claims keep from going back to the owner.
        uint64 reserved;
        uint256 base;
        bytes32 policyRoot;
        /// keccak256 of the payees, 32 bytes each.
        bytes32 payeesHash;
        bytes32 termsHash;
    }

    event MandateOpened(
        address indexed agent,
        address indexed owner,
        address indexed processor,
        address token,
        uint64 budget,
        uint40 paymentCap,
        uint40 validUntil,
        address[] payees,
        bytes32 policyRoot,
        bytes32 termsHash
    );
    event MandateRevoked(address indexed agent, uint64 afterSeq, uint40 closesAt);
    /// @notice The processor ends a revoked mandate at payment `seq` and `head`.
    event RevocationAcknowledged(address indexed agent, uint64 seq, bytes32 head, uint64 directSpent);
    /// @notice The mandate is the payees' now: the processor settles it no more.
    event FallbackStarted(address indexed agent, uint40 closesAt);
    /// @notice `returned` units went back, the rest waits for pending claims.
    event RemainderReturned(address indexed agent, address indexed owner, uint64 returned);
    /// @notice `returned` units went back to the owner's free balance.
    event MandateClosed(address indexed agent, address indexed owner, uint64 returned);

    /// @notice A window outside its range; `index` is its place in {Windows}, from 0.
    error WindowOutOfRange(uint256 index, uint256 value, uint256 minimum, uint256 maximum);

    error AgentUsed(address agent);
    error ZeroBudget();
    error PaymentCapOutOfRange(uint40 paymentCap, uint64 budget);
    error EndOutOfRange(uint64 validUntil, uint256 earliest, uint256 latest);
    error ZeroProcessor();
    error TooManyPayees(uint256 count, uint256 limit);
    /// @notice The payee is the zero address, the token or a Bursar contract.
    error InvalidPayee(address payee);
    /// @notice The owner, or its ERC-1271 contract by answer, revert or silence, does not stand behind the message.
    error InvalidOwnerSignature(address owner);

    error MandateNotOpen(address agent, State state);
    error OnlyOwner(address caller, address owner);
    error TooEarlyToClose(address agent, uint256 time, uint256 closesAt);

    /// @notice The identity gate answered no, or did not answer; `account` is the owner or a listed payee.
    error RefusedByGate(address account);
    error MandateNotRevoked(address agent, State state);
    error OnlyProcessor(address caller, address processor);
    error AlreadyAcknowledged(address agent, uint64 seq);
    error AcknowledgementTooLate(address agent, uint256 time, uint256 deadline);
    /// @notice What is settled already cannot be left out.
    error AcknowledgementBelowSettled(address agent, uint64 seq, uint64 settled);
    /// @notice The processor did not answer the revocation in time: only claims debit the mandate.
    error NotAcknowledged(address agent, uint256 time, uint256 deadline);
    error AboveAcknowledged(address agent, uint256 value, uint256 acknowledged);
    error HeadNotAcknowledged(address agent, uint256 head, bytes32 acknowledged);
    /// @notice Both sign the payment up to which everything is settled.
    error NotSettledUpTo(address agent, uint64 seq, uint64 settled);
    error ClaimsPending(address agent, uint64 reserved);

    error OnlyClaims(address caller, address claims);
    error OnlySettlement(address caller, address settlement);
    error EmptyBatch();
    error AgentsNotIncreasing(address previous, address agent);
    /// @notice The mandate was never opened, is closed, or its windows are over (`time` >= `closesAt`).
    error MandateNotSettleable(address agent, State state, uint256 time, uint256 closesAt);
    error WrongProcessor(address agent, address caller, address processor);
    error WrongToken(address agent, uint32 tokenId, uint32 expected);
    /// @notice A row that settles no payment.
    error EmptyRow(address agent);
    /// @notice Both rails together would spend `spent`.
    error BudgetExceeded(address agent, uint256 spent, uint64 budget);

    error OnlyDirect(address caller, address direct);
    /// @notice A direct payment of no unit.
    error ZeroPayment(address agent);
    error PaymentAboveCap(address agent, uint256 units, uint40 paymentCap);
    /// @notice The payees are not those that the owner signed, in their order.
    error PayeesMismatch(address agent);
    error PayeeNotAllowed(address agent, address payee);

    /// @notice Opens a mandate and locks its budget from the owner's free balance in the escrow. Anyone may send it.
    /// @param ownerSignature the owner's over the mandate: 65 bytes, or whatever its ERC-1271 contract takes.
    /// @param agentSignature the agent's over the same mandate: 65 bytes, s in the lower half order, v 27 or 28. It
    /// shows that the session key exists and wants this mandate, so nobody else can occupy its address.
    /// @dev An agent address is used once, for ever. `validUntil` may be at most 90 days away.
    function open(Mandate calldata mandate, bytes calldata ownerSignature, bytes calldata agentSignature) external;

    /// @notice Ends a mandate early, by its owner. What was receipted before can still settle until `closesAt`, which
    /// now counts from this call.
    /// @param afterSeq the last payment that the owner means to allow.
    function revoke(address agent, uint64 afterSeq) external;

    /// @notice {revoke} by the owner's signed `Revocation` (EOA or ERC-1271), sent by anyone.
    function revokeWithSignature(address agent, uint64 afterSeq, bytes calldata ownerSignature) external;

    /// @notice The processor's answer to a revocation: nothing above `seq` debits the owner any more, nor a direct
    /// payment that would exceed `directSpent`. Without it, within the acknowledgement window, the mandate is settled no
    /// more and only claims debit it. Claims that were filed before the answer are still paid from the lock, whatever it says.
    /// @param head the ledger's head at `seq`.
    function acknowledge(address agent, uint64 seq, bytes32 head, uint64 directSpent) external;

    /// @notice Ends a mandate by one signature each of owner and processor over `Close(agent, seq)`, where all payments
    /// up to `seq` are settled: it can be closed an hour later, unless somebody files a claim before. It works once, so that
    /// nobody can bring the hour back after a claim.
    function closeTogether(
        address agent,
        uint64 seq,
        bytes calldata ownerSignature,
        bytes calldata processorSignature
    ) external;

    /// @notice Returns what is left of a mandate to its owner's free balance once its windows are over. Anyone may
    /// call it. What pending claims ask for waits for them, and only that.
    function close(address agent) external;

    /// @notice Moves the mandates of `rows` forward and their debits from the lock to `credits`, all or nothing. Only
    /// the settlement contract, which must check that a proof supports the rows and the credits.
    /// @param processor who settles: every mandate of the batch must name it.
    /// @return rowWords what the proof speaks about, seven words a row in their order: agent, the stored seq and base that it
    /// started from, head, newBase, policyRoot, and debit + count·2^96 + offset·2^128.
    /// @return spent the totals of the mandates' ledgers after it, in the order of the rows.
    /// @return token the one token of the batch.
    /// @return total the units moved.
    function settle(
        address processor,
        Row[] calldata rows,
        Credit[] calldata credits
    ) external returns (bytes memory rowWords, uint64[] memory spent, address token, uint256 total);

    /// @notice Moves one payment of the direct rail from the lock to its payee's credit, and adds it to `directSpent`.
    /// Base, seq and spent stay as they are. Only the direct settlement contract, which must check that the agent signed
    /// this payment and that it pays once.
    /// @param processor who submits: the mandate must name it.
    /// @param token the mandate's.
    /// @param units 1 … the mandate's payment cap.
    /// @param payees the mandate's payee list as its owner signed it; `payee` must be in it, unless it is empty.
    /// @dev Open to mandates in the same states and until the same second as {settle}. Reverts with
    /// {MandateNotSettleable}, {WrongProcessor}, {WrongToken}, {ZeroPayment}, {PaymentAboveCap}, {PayeesMismatch},
    /// {PayeeNotAllowed}, {InvalidPayee} or {BudgetExceeded}.
    function payDirect(
        address processor,
        address agent,
        address token,
        address payee,
        uint256 units,
        address[] calldata payees
    ) external;

    /// @notice Whether a claim may be filed, and keeps its units from going back to the owner. Only the claims contract,
    /// which must check both signatures. A claim during the hour of {closeTogether} brings back the full windows.
    /// @param units 1 … the mandate's payment cap.
    /// @param payees the mandate's payee list as its owner signed it.
    /// @return payable_ whether the lock, and not only the bond, may pay it.
    function reserveClaim(
        address agent,
        uint64 seq,
        address payee,
        uint64 units,
        address[] calldata payees
    ) external returns (bool payable_);

    /// @notice Ends a claim: with `pay`, from the lock, as far as that reaches, and the mandate goes to Fallback. Only the
    /// claims contract.
    /// @return paid units.
    function endClaim(address agent, address payee, uint64 units, bool pay) external returns (uint64 paid);

    /// @notice The mandate of an agent; `state` None and zeros if there is none.
    function mandateOf(address agent) external view returns (MandateRecord memory);

    function stateOf(address agent) external view returns (State);

    /// @notice The token of an agent's mandate, the zero address if there is none.
    function tokenOf(address agent) external view returns (address);

    /// @notice Where the agent's ledger stands.
    function positionOf(address agent) external view returns (Position memory);

    /// @notice The units of the budget that are still locked: budget − spent − directSpent, 0 when closed.
    function remainingOf(address agent) external view returns (uint64);

    function acknowledgementOf(address agent) external view returns (Acknowledgement memory);

    /// @notice What a claim must know of a mandate; zeros if there is none.
    /// @return processor the mandate's.
    /// @return token the mandate's.
    /// @return seq payments settled.
    /// @return endedAt when its receipts ended: revoked, fallen back, or `validUntil`. No receipt in good faith promises more
    /// than `acknowledge` and `settleBy` after it.
    /// @return claimsUntil the last second in which a claim or challenge may be filed.
    /// @return fallback_ whether the processor settles it no more.
    function claimsOf(
        address agent
    )
        external
        view
        returns (address processor, address token, uint64 seq, uint40 endedAt, uint40 claimsUntil, bool fallback_);

    /// @notice The head of an agent's empty ledger.
    function genesisOf(address agent) external view returns (uint256);

    /// @notice The EIP-712 digest of a mandate, which its owner and its agent sign.
    function hashMandate(Mandate calldata mandate) external view returns (bytes32);

    /// @notice The EIP-712 domain separator of all signed messages.
    function domainSeparator() external view returns (bytes32);

    function escrow() external view returns (IEscrow);

    /// @notice The only contract that may settle batches.
    function settlement() external view returns (address);

    /// @notice The only contract that may settle single payments.
    function direct() external view returns (address);

    /// @notice The only contract that may pay claims.
    function claims() external view returns (address);

    /// @notice Who may process, and what bond stands behind it.
    function processors() external view returns (IProcessorRegistry);

    /// @notice Who is asked before a mandate is opened; never before anything else.
    function gate() external view returns (IIdentityGate);

    function windows() external view returns (Windows memory);
}
