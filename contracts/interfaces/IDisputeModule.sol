// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IArbitrable} from "./IArbitrable.sol";
import {IArbitrator} from "./IArbitrator.sol";
import {IEscrow} from "./IEscrow.sol";
import {IMandateRegistry} from "./IMandateRegistry.sol";
import {IProcessorRegistry} from "./IProcessorRegistry.sol";
import {Receipt} from "./Messages.sol";

/// @notice One agent's payments to one payee that wait `holdback` seconds; its address is {IDisputeModule.holdOf}.
struct Hold {
    address agent;
    address payee;
    /// 0 … 7 days.
    uint40 holdback;
}

/// @notice A payment with both its signatures: the agent's over (seq, spent, head, line) and the processor's over the
/// receipt, which repeats the rest. `receipt.payee` is a hold.
struct Purchase {
    Receipt receipt;
    uint64 spent;
    bytes agentSignature;
    bytes processorSignature;
}

/// @notice A payee's signed offer for one purchase.
struct Quote {
    address payee;
    uint40 amount;
    bytes32 ref;
    string host;
    string category;
    uint64 expiresAt;
}

/// @notice A payee's signed word that it served payment `seq`.
struct Delivery {
    address agent;
    uint64 seq;
    bytes32 ref;
    /// Hash of what was delivered.
    bytes32 bodyHash;
    uint64 deliveredAt;
}

/// @title Payments that can be disputed
/// @notice An agent whose mandate's terms name this module pays the *hold* of a payee instead of the payee: a sub-account
/// of this contract in the escrow, for one agent, one payee and one holdback. What arrives there is the payee's once the
/// holdback is over, unless the mandate's owner or its agent disputes a payment before. A dispute freezes that payment
/// alone, and only out of its own hold: nobody else's money can be touched.
///
/// Clear cases resolve by themselves. A price above the payee's signed quote is refunded at once. A purchase that was not
/// delivered, or was charged twice, is refunded unless the payee shows its signed {Delivery} of that very payment within
/// the answer window. Everything else is answered by the payee's evidence, or refunded. An answer that nobody escalates
/// stands. What is escalated goes to the arbitrator; if it decides nothing in time, the payee is paid.
///
/// Every state has a deadline, and after it anyone may call {resolve}. No call waits for a token, a payee, an owner or an
/// arbitrator: the escrow moves credits only, and rulings are pushed. Amounts are token base units, times Unix seconds.
interface IDisputeModule is IArbitrable {
    enum Kind {
        /// No signed delivery in time.
        NotDelivered,
        /// Another payment for the same reference came before.
        DoubleCharge,
        /// The price is above the payee's quote.
        OverQuote,
        Other
    }

    enum Status {
        None,
        /// The payee may answer.
        Filed,
        /// Either side may escalate.
        Answered,
        /// The arbitrator decides.
        Escalated,
        PaidToPayee,
        Refunded
    }

    /// @notice How long things may take, in seconds, fixed at deployment within hard ranges.
    struct Deadlines {
        /// From a receipt's settle-by to the latest delivery: 0 … 7 d.
        uint40 deliver;
        /// For the payee to answer: 1 h … 14 d.
        uint40 answer;
        /// For both sides to escalate: 1 h … 14 d.
        uint40 escalate;
        /// For the arbitrator: 1 … 30 d.
        uint40 rule;
    }

    struct Dispute {
        address agent;
        uint64 seq;
        Kind kind;
        address payee;
        uint40 holdback;
        Status status;
        address owner;
        /// The last second of this state.
        uint40 deadline;
        /// The latest delivery that counts as an answer.
        uint40 deliverBy;
        address filer;
        /// What is frozen, or was.
        uint128 amount;
        bytes32 ref;
        bytes32 evidenceHash;
        bytes32 answerHash;
    }

    /// @notice What the module knows of a hold.
    struct HoldState {
        /// The escrow's balance as far as it was collected: what waits, what is matured and what is frozen.
        uint256 known;
        /// What is frozen by disputes.
        uint256 frozen;
        /// Parts of it that mature at different times, all in all.
        uint256 tranches;
        /// The first of them that was not released.
        uint256 cursor;
    }

    event Collected(
        address indexed hold,
        address indexed agent,
        address indexed payee,
        uint256 amount,
        uint256 maturesAt
    );
    event Released(address indexed hold, address indexed agent, address indexed payee, uint256 amount);
    event Filed(
        uint256 indexed id,
        address indexed agent,
        address indexed payee,
        uint64 seq,
        Kind kind,
        uint256 amount,
        bytes32 evidenceHash,
        uint256 deadline
    );
    /// @notice `answerHash` is the body hash of the delivery, or of the payee's evidence.
    event Answered(uint256 indexed id, bytes32 answerHash, uint256 deadline);
    event Escalated(uint256 indexed id, uint256 indexed disputeID, address by, uint256 cost, uint256 deadline);
    event Resolved(uint256 indexed id, address indexed to, Status status, uint256 amount);

    error DeadlineOutOfRange(uint256 index, uint256 value, uint256 minimum, uint256 maximum);
    error HoldbackTooLong(uint256 holdback, uint256 limit);
    error InvalidPayee(address payee);
    error NoMandate(address agent);
    /// @notice The payment is of another agent or paid another account than the hold.
    error NotOfHold(address agent, address payee, address hold);
    error OnlyOwnerOrAgent(address caller, address owner, address agent);
    error OnlyPayee(address caller, address payee);
    error OnlyParty(address caller, address filer, address payee);
    error OnlyArbitrator(address caller, address arbitrator);
    /// @notice The payment is not settled, and no claim of it was paid.
    error NotPaid(address agent, uint64 seq, uint64 settled);
    error NotAReceiptKey(address processor, address key, uint256 settleBy);
    /// @notice No receipt that exists promises settlement that late.
    error SettleByTooLate(uint256 settleBy, uint256 latest);
    error TooLateToFile(uint256 time, uint256 limit);
    error DisputedAlready(address agent, uint64 seq, uint256 id);
    /// @notice The hold has less that waits than the payment's amount.
    error InsufficientHeld(address hold, uint256 amount, uint256 held);
    /// @notice Filed by its own function, which takes the proof.
    error KindNeedsProof(Kind kind);
    /// @notice The payment named as the first of two is not an earlier one for the same reference.
    error NotChargedBefore(uint64 seq, uint64 earlierSeq, bytes32 ref, bytes32 earlierRef);
    error QuoteMismatch(address payee, bytes32 ref);
    error QuoteNotExceeded(uint256 amount, uint256 quoted);
    /// @notice The quote had ended when the payment was made.
    error QuoteExpired(uint256 expiresAt, uint256 paidAt);
    error WrongStatus(uint256 id, Status status, Status expected);
    error DeadlineOver(uint256 id, uint256 time, uint256 deadline);
    error DeadlineNotOver(uint256 id, uint256 time, uint256 deadline);
    /// @notice Only a signed delivery answers this kind, or only evidence does.
    error WrongAnswer(uint256 id, Kind kind);
    error DeliveryMismatch(uint256 id, address agent, uint64 seq, bytes32 ref);
    error DeliveredTooLate(uint256 id, uint256 deliveredAt, uint256 deliverBy);
    error WrongFee(uint256 value, uint256 cost);
    error DisputeIdUsed(uint256 disputeID);
    error UnknownDispute(uint256 disputeID);

    /// @notice The account that an agent pays, so that `payee` gets it after `holdback` seconds.
    /// @dev Reverts with {HoldbackTooLong} and {InvalidPayee}. Never pay a hold that this function did not answer.
    function holdOf(address agent, address payee, uint40 holdback) external view returns (address);

    /// @notice Counts what arrived in a hold since the last call: it matures `holdback` seconds from now, rounded up by at
    /// most a 64th of the holdback and a second. Anyone may call it; the other functions do it first.
    function collect(Hold calldata hold) external returns (uint256 collected);

    /// @notice Pays the payee what is matured, as credit in the escrow. Anyone may call it.
    /// @param maxTranches how many parts to look at, at most; what is left is paid by the next call.
    function release(Hold calldata hold, uint256 maxTranches) external returns (uint256 paid);

    /// @notice Disputes a payment that was not delivered ({Kind.NotDelivered}) or for another reason ({Kind.Other}), by
    /// the mandate's owner or its agent, once for each payment, while its money waits in the hold.
    /// @param evidenceHash keccak256 of the evidence file, see docs/disputes.md.
    function file(
        Kind kind,
        Hold calldata hold,
        Purchase calldata purchase,
        bytes32 evidenceHash
    ) external returns (uint256 id);

    /// @notice Disputes the later of two payments for one reference. The payee keeps it by the delivery of each.
    /// @param earlier the first payment, with a lower number. References repeat when the same is bought again, so two
    /// payments alone are no proof.
    function fileDoubleCharge(
        Hold calldata hold,
        Purchase calldata purchase,
        Purchase calldata earlier,
        bytes32 evidenceHash
    ) external returns (uint256 id);

    /// @notice Refunds at once what a payment was above the payee's signed quote for the same reference.
    /// @param quote its payee is the payee's account or the hold; valid when the payment was made, which is taken to be the
    /// settle-by window before the receipt's settle-by.
    /// @param signature the payee's: 65 bytes of its key.
    function fileOverQuote(
        Hold calldata hold,
        Purchase calldata purchase,
        Quote calldata quote,
        bytes calldata signature,
        bytes32 evidenceHash
    ) external returns (uint256 id);

    /// @notice Answers {Kind.NotDelivered} and {Kind.DoubleCharge}. Anyone may send it.
    /// @param signature the payee's; not looked at if the payee itself sends it, so that a contract can answer.
    function answerDelivery(uint256 id, Delivery calldata delivery, bytes calldata signature) external;

    /// @notice Answers {Kind.Other}, by the payee.
    function answer(uint256 id, bytes32 evidenceHash) external;

    /// @notice Takes an answered dispute to the arbitrator; by the owner, the agent or the payee, who pays exactly its cost.
    function escalate(uint256 id) external payable returns (uint256 disputeID);

    /// @notice The payee gives in, at any time before the end.
    function refund(uint256 id) external;

    /// @notice Ends a dispute whose deadline is over: refunds it if the payee did not answer, and else pays the payee.
    /// Anyone may call it.
    function resolve(uint256 id) external;

    /// @notice What {escalate} costs now.
    function escalationCost(uint256 id) external view returns (uint256);

    /// @notice A dispute; status None and zeros if there is none. They count from 1.
    function disputeOf(uint256 id) external view returns (Dispute memory);

    /// @notice The dispute of a payment, 0 if there is none.
    function disputeIdOf(address agent, uint64 seq) external view returns (uint256);

    /// @notice The dispute that the arbitrator knows by `disputeID`, 0 if there is none.
    function escalatedOf(uint256 disputeID) external view returns (uint256);

    function holdStateOf(address hold) external view returns (HoldState memory);

    /// @notice One part of a hold: what is left of it, and when it matures.
    function trancheOf(address hold, uint256 index) external view returns (uint256 amount, uint256 maturesAt);

    function disputeCount() external view returns (uint256);

    function deadlines() external view returns (Deadlines memory);

    function registry() external view returns (IMandateRegistry);

    function escrow() external view returns (IEscrow);

    /// @notice Who knows the keys that sign receipts.
    function processors() external view returns (IProcessorRegistry);

    function arbitrator() external view returns (IArbitrator);
}
