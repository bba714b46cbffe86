// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

import {Credit, Row} from "./interfaces/Batch.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";
import {IIdentityGate} from "./interfaces/IIdentityGate.sol";
import {IMandateRegistry} from "./interfaces/IMandateRegistry.sol";
import {IProcessorRegistry} from "./interfaces/IProcessorRegistry.sol";
import {Mandate} from "./interfaces/Messages.sol";
import {BatchWords} from "./lib/BatchWords.sol";
import {Field} from "./lib/Field.sol";
import {Gate} from "./lib/Gate.sol";
import {Ledger} from "./lib/Ledger.sol";
import {StrictECDSA} from "./lib/StrictECDSA.sol";
import {TypedHashes} from "./lib/TypedHashes.sol";

/// @title MandateRegistry
contract MandateRegistry is IMandateRegistry, EIP712 {
    /// @dev Ten slots, in the order of use: settling a row reads the first four and writes the first two.
    struct StoredMandate {
        // 0
        uint256 base;
        // 1
        uint64 seq;
        uint64 spent;
        uint64 directSpent;
        uint64 budget;
        // 2
        address processor;
        uint32 tokenId;
        uint40 closesAt;
        State state;
        // 3
        bytes32 policyRoot;
        // 4
        address owner;
        uint40 paymentCap;
        uint40 validUntil;
        // 5
        bytes32 payeesHash;
        // 6
        bytes32 termsHash;
        // 7, written by a revocation and its acknowledgement
        uint40 revokedAt;
        uint64 revokedAfterSeq;
        bool acknowledged;
        uint64 acknowledgedSeq;
        uint64 acknowledgedDirect;
        /// Closed by both: the same signatures must not shorten the windows that a claim brought back.
        bool noticed;
        // 8
        bytes32 acknowledgedHead;
        // 9, written by claims
        uint64 reserved;
        uint64 returned;
    }

    uint256 private constant MAX_DURATION = 90 days;
    uint256 private constant MAX_PAYEES = 8;
    uint40 private constant NOTICE = 1 hours;

    /// @inheritdoc IMandateRegistry
    IEscrow public immutable escrow;
    /// @inheritdoc IMandateRegistry
    address public immutable settlement;
    /// @inheritdoc IMandateRegistry
    address public immutable direct;
    /// @inheritdoc IMandateRegistry
    address public immutable claims;
    /// @inheritdoc IMandateRegistry
    IProcessorRegistry public immutable processors;
    /// @inheritdoc IMandateRegistry
    IIdentityGate public immutable gate;

    uint40 private immutable _settleBy;
    uint40 private immutable _grace;
    uint40 private immutable _acknowledge;
    uint40 private immutable _cure;
    uint40 private immutable _claim;

    mapping(address agent => StoredMandate) private _mandates;

    modifier onlyClaims() {
        if (msg.sender != claims) revert OnlyClaims(msg.sender, claims);
        _;
    }

    constructor(Links memory links, Windows memory windows_) EIP712("Bursar", "1") {
        _requireWindow(0, windows_.settleBy, 10 minutes, 24 hours);
        _requireWindow(1, windows_.grace, 30 minutes, 6 hours);
        _requireWindow(2, windows_.acknowledge, 15 minutes, 6 hours);
        _requireWindow(3, windows_.cure, 6 hours, 24 hours);
        _requireWindow(4, windows_.claim, 48 hours, 14 days);

        escrow = links.escrow;
        settlement = links.settlement;
        direct = links.direct;
        claims = links.claims;
        processors = links.processors;
        gate = links.gate;
        _settleBy = windows_.settleBy;
        _grace = windows_.grace;
        _acknowledge = windows_.acknowledge;
        _cure = windows_.cure;
        _claim = windows_.claim;
    }

    /// @inheritdoc IMandateRegistry
    function open(Mandate calldata mandate, bytes calldata ownerSignature, bytes calldata agentSignature) external {
        StoredMandate storage stored = _mandates[mandate.agent];
        if (stored.state != State.None) revert AgentUsed(mandate.agent);
        _requireLimits(mandate);
        _requirePayees(mandate);
        bytes32 digest = hashMandate(mandate);
        _requireOwnerSignature(mandate.owner, digest, ownerSignature);
        StrictECDSA.requireSigner(mandate.agent, digest, agentSignature);

        _askGate(mandate);

        uint32 tokenId = escrow.registerToken(mandate.token);
        _store(stored, mandate, tokenId);
        emit MandateOpened(
            mandate.agent,
            mandate.owner,
            mandate.processor,
            mandate.token,
            mandate.budget,
            mandate.paymentCap,
            uint40(mandate.validUntil),
            mandate.payees,
            mandate.policyRoot,
            mandate.termsHash
        );

        processors.cover(mandate.processor, mandate.token, mandate.budget, stored.closesAt);
        escrow.lock(tokenId, mandate.owner, mandate.budget);
    }

    /// @inheritdoc IMandateRegistry
    function revoke(address agent, uint64 afterSeq) external {
        address owner = _mandates[agent].owner;
        if (msg.sender != owner) revert OnlyOwner(msg.sender, owner);
        _revoke(agent, afterSeq);
    }

    /// @inheritdoc IMandateRegistry
    function revokeWithSignature(address agent, uint64 afterSeq, bytes calldata ownerSignature) external {
        bytes32 digest = _hashTypedDataV4(TypedHashes.hashRevocation(agent, afterSeq));
        _requireOwnerSignature(_mandates[agent].owner, digest, ownerSignature);
        _revoke(agent, afterSeq);
    }

    /// @inheritdoc IMandateRegistry
    function acknowledge(address agent, uint64 seq, bytes32 head, uint64 directSpent) external {
        StoredMandate storage stored = _mandates[agent];
        if (stored.state != State.Revoked) revert MandateNotRevoked(agent, _stateOf(stored));
        if (msg.sender != stored.processor) revert OnlyProcessor(msg.sender, stored.processor);
        if (stored.acknowledged) revert AlreadyAcknowledged(agent, stored.acknowledgedSeq);
        uint256 deadline = stored.revokedAt + _acknowledge;
        if (block.timestamp > deadline) revert AcknowledgementTooLate(agent, block.timestamp, deadline);
        if (seq < stored.seq) revert AcknowledgementBelowSettled(agent, seq, stored.seq);

        _setAcknowledged(stored, agent, seq, head, directSpent);
    }

    /// @inheritdoc IMandateRegistry
    function closeTogether(
        address agent,
        uint64 seq,
        bytes calldata ownerSignature,
        bytes calldata processorSignature
    ) external {
        StoredMandate storage stored = _mandates[agent];
        State state = stored.state;
        if (state != State.Open && state != State.Revoked) revert MandateNotOpen(agent, state);
        if (stored.noticed) revert AlreadyAcknowledged(agent, stored.acknowledgedSeq);
        if (seq != stored.seq) revert NotSettledUpTo(agent, seq, stored.seq);
        bytes32 digest = _hashTypedDataV4(TypedHashes.hashClose(agent, seq));
        _requireOwnerSignature(stored.owner, digest, ownerSignature);
        address key = processors.processorOf(stored.processor).receiptKey;
        StrictECDSA.requireSigner(key, digest, processorSignature);

        if (state == State.Open) _end(stored, agent, seq);
        stored.noticed = true;
        _setAcknowledged(stored, agent, seq, bytes32(0), stored.directSpent);
        uint40 noticed = uint40(block.timestamp) + NOTICE;
        if (noticed < stored.closesAt) stored.closesAt = noticed;
    }

    /// @inheritdoc IMandateRegistry
    function close(address agent) external {
        StoredMandate storage stored = _mandates[agent];
        State state = _stateOf(stored);
        if (state == State.None || state == State.Closed) revert MandateNotOpen(agent, state);
        if (block.timestamp < stored.closesAt) revert TooEarlyToClose(agent, block.timestamp, stored.closesAt);

        uint64 remaining = _remainingOf(stored);
        uint64 waiting = stored.reserved < remaining ? stored.reserved : remaining;
        uint64 due = remaining - waiting;
        if (waiting == 0) {
            stored.state = State.Closed;
            emit MandateClosed(agent, stored.owner, due);
            processors.uncover(stored.processor, escrow.tokenOf(stored.tokenId), stored.budget);
        } else {
            if (due == 0) revert ClaimsPending(agent, waiting);
            stored.returned += due;
            emit RemainderReturned(agent, stored.owner, due);
        }

        escrow.release(stored.tokenId, stored.owner, due);
    }

    /// @inheritdoc IMandateRegistry
    function settle(
        address processor,
        Row[] calldata rows,
        Credit[] calldata credits
    ) external returns (bytes memory rowWords, uint64[] memory spent, address token, uint256 total) {
        if (msg.sender != settlement) revert OnlySettlement(msg.sender, settlement);
        if (rows.length == 0) revert EmptyBatch();

        rowWords = BatchWords.allocate(rows.length);
        spent = new uint64[](rows.length);
        bytes32 domain = _domainSeparatorV4();
        uint32 tokenId = _mandates[rows[0].agent].tokenId;
        address previous = address(0);
        for (uint256 i = 0; i < rows.length; ++i) {
            Row calldata row = rows[i];
            address agent = row.agent;
            if (agent <= previous) revert AgentsNotIncreasing(previous, agent);
            previous = agent;
            StoredMandate storage stored = _mandates[agent];
            State state = _requireSettleable(stored, agent, processor, tokenId);
            BatchWords.write(rowWords, i, row, stored.seq, stored.base, uint256(stored.policyRoot));
            spent[i] = _advance(stored, row, domain);
            if (state == State.Revoked) _requireLedgerAcknowledged(stored, row);
            total += row.debit;
        }

        token = escrow.settle(tokenId, total, credits);
    }

    /// @inheritdoc IMandateRegistry
    function payDirect(
        address processor,
        address agent,
        address token,
        address payee,
        uint256 units,
        address[] calldata payees
    ) external {
        if (msg.sender != direct) revert OnlyDirect(msg.sender, direct);
        StoredMandate storage stored = _mandates[agent];
        uint32 tokenId = escrow.tokenIdOf(token);
        _requireSettleable(stored, agent, processor, tokenId);
        if (units == 0) revert ZeroPayment(agent);
        if (units > stored.paymentCap) revert PaymentAboveCap(agent, units, stored.paymentCap);
        _requireListed(stored, agent, payee, payees);
        _requirePayee(payee, token);

        uint256 directSpent = stored.directSpent + units;
        uint256 total = stored.spent + directSpent;
        if (total > stored.budget) revert BudgetExceeded(agent, total, stored.budget);
        if (stored.state == State.Revoked) _requireDirectAcknowledged(stored, agent, directSpent);
        _payOne(stored, payee, uint64(units));
    }

    /// @inheritdoc IMandateRegistry
    function reserveClaim(
        address agent,
        uint64 seq,
        address payee,
        uint64 units,
        address[] calldata payees
    ) external onlyClaims returns (bool payable_) {
        StoredMandate storage stored = _mandates[agent];
        if (units == 0) revert ZeroPayment(agent);
        if (units > stored.paymentCap) revert PaymentAboveCap(agent, units, stored.paymentCap);
        _requireListed(stored, agent, payee, payees);
        _requirePayee(payee, escrow.tokenOf(stored.tokenId));

        uint40 closesAt = _endedAt(stored) + _tail();
        if (stored.state != State.Closed && stored.closesAt < closesAt) stored.closesAt = closesAt;
        payable_ = stored.state != State.Closed && !(stored.acknowledged && seq > stored.acknowledgedSeq);
        if (payable_) stored.reserved += units;
    }

    /// @inheritdoc IMandateRegistry
    function endClaim(address agent, address payee, uint64 units, bool pay) external onlyClaims returns (uint64 paid) {
        StoredMandate storage stored = _mandates[agent];
        stored.reserved -= units;
        if (!pay || stored.state == State.Closed) return 0;

        if (stored.state != State.Fallback) _startFallback(stored, agent);
        uint64 remaining = _remainingOf(stored);
        paid = units < remaining ? units : remaining;
        if (paid != 0) _payOne(stored, payee, paid);
    }

    /// @inheritdoc IMandateRegistry
    function mandateOf(address agent) external view returns (MandateRecord memory) {
        StoredMandate storage stored = _mandates[agent];
        return
            MandateRecord({
                state: _stateOf(stored),
                owner: stored.owner,
                token: escrow.tokenOf(stored.tokenId),
                processor: stored.processor,
                budget: stored.budget,
                paymentCap: stored.paymentCap,
                validUntil: stored.validUntil,
                revokedAt: stored.revokedAt,
                revokedAfterSeq: stored.revokedAfterSeq,
                closesAt: stored.closesAt,
                seq: stored.seq,
                spent: stored.spent,
                directSpent: stored.directSpent,
                reserved: stored.reserved,
                base: stored.base,
                policyRoot: stored.policyRoot,
                payeesHash: stored.payeesHash,
                termsHash: stored.termsHash
            });
    }

    /// @inheritdoc IMandateRegistry
    function stateOf(address agent) external view returns (State) {
        return _stateOf(_mandates[agent]);
    }

    /// @inheritdoc IMandateRegistry
    function tokenOf(address agent) external view returns (address) {
        return escrow.tokenOf(_mandates[agent].tokenId);
    }

    /// @inheritdoc IMandateRegistry
    function positionOf(address agent) external view returns (Position memory) {
        StoredMandate storage stored = _mandates[agent];
        return Position(stored.base, stored.seq, stored.spent, uint256(stored.policyRoot));
    }

    /// @inheritdoc IMandateRegistry
    function remainingOf(address agent) external view returns (uint64) {
        StoredMandate storage stored = _mandates[agent];
        return stored.state == State.Closed ? 0 : _remainingOf(stored);
    }

    /// @inheritdoc IMandateRegistry
    function acknowledgementOf(address agent) external view returns (Acknowledgement memory) {
        StoredMandate storage stored = _mandates[agent];
        return
            Acknowledgement(
                stored.acknowledged,
                stored.acknowledgedSeq,
                stored.acknowledgedDirect,
                stored.acknowledgedHead
            );
    }

    /// @inheritdoc IMandateRegistry
    function claimsOf(
        address agent
    )
        external
        view
        returns (address processor, address token, uint64 seq, uint40 endedAt, uint40 claimsUntil, bool fallback_)
    {
        StoredMandate storage stored = _mandates[agent];
        processor = stored.processor;
        if (processor == address(0)) return (processor, address(0), 0, 0, 0, false);
        token = escrow.tokenOf(stored.tokenId);
        seq = stored.seq;
        endedAt = _endedAt(stored);
        claimsUntil = endedAt + _tail();
        bool unanswered = stored.state == State.Revoked && !stored.acknowledged;
        fallback_ = stored.state == State.Fallback || (unanswered && block.timestamp > stored.revokedAt + _acknowledge);
    }

    /// @inheritdoc IMandateRegistry
    function genesisOf(address agent) external view returns (uint256) {
        return Ledger.genesis(address(this), agent);
    }

    /// @inheritdoc IMandateRegistry
    function hashMandate(Mandate calldata mandate) public view returns (bytes32) {
        return _hashTypedDataV4(TypedHashes.hashMandate(mandate));
    }

    /// @inheritdoc IMandateRegistry
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    /// @inheritdoc IMandateRegistry
    function windows() external view returns (Windows memory) {
        return Windows(_settleBy, _grace, _acknowledge, _cure, _claim);
    }

    function _store(StoredMandate storage stored, Mandate calldata mandate, uint32 tokenId) private {
        uint40 validUntil = uint40(mandate.validUntil);
        stored.base = Ledger.genesis(address(this), mandate.agent);
        stored.budget = mandate.budget;
        stored.processor = mandate.processor;
        stored.tokenId = tokenId;
        stored.closesAt = validUntil + _tail();
        stored.state = State.Open;
        stored.policyRoot = mandate.policyRoot;
        stored.owner = mandate.owner;
        stored.paymentCap = mandate.paymentCap;
        stored.validUntil = validUntil;
        stored.payeesHash = TypedHashes.hashPayees(mandate.payees);
        stored.termsHash = mandate.termsHash;
    }

    /// @dev Sets flags and windows only: a batch proved before a revocation still settles after it.
    function _revoke(address agent, uint64 afterSeq) private {
        StoredMandate storage stored = _mandates[agent];
        State state = _stateOf(stored);
        if (state != State.Open) revert MandateNotOpen(agent, state);

        _end(stored, agent, afterSeq);
    }

    function _end(StoredMandate storage stored, address agent, uint64 afterSeq) private {
        uint40 time = uint40(block.timestamp);
        if (time > stored.validUntil) time = stored.validUntil;
        stored.state = State.Revoked;
        stored.revokedAt = time;
        stored.revokedAfterSeq = afterSeq;
        stored.closesAt = time + _tail();
        emit MandateRevoked(agent, afterSeq, stored.closesAt);
    }

    function _setAcknowledged(
        StoredMandate storage stored,
        address agent,
        uint64 seq,
        bytes32 head,
        uint64 directSpent
    ) private {
        stored.acknowledged = true;
        stored.acknowledgedSeq = seq;
        stored.acknowledgedDirect = directSpent;
        stored.acknowledgedHead = head;
        emit RevocationAcknowledged(agent, seq, head, directSpent);
    }

    /// @dev Called a cure window after a claim, a time that the processor knew in advance: its batches leave this one out.
    function _startFallback(StoredMandate storage stored, address agent) private {
        stored.state = State.Fallback;
        uint40 closesAt = uint40(block.timestamp) + _tail();
        if (closesAt < stored.closesAt) stored.closesAt = closesAt;
        emit FallbackStarted(agent, stored.closesAt);
    }

    /// @dev One payment outside the ledger: base, seq and spent stay.
    function _payOne(StoredMandate storage stored, address payee, uint64 units) private {
        stored.directSpent += units;
        Credit[] memory credits = new Credit[](1);
        credits[0] = Credit(payee, units);
        escrow.settle(stored.tokenId, units, credits);
    }

    /// @dev Moves base, seq and spent together; nothing else ever does. Returns the new spent.
    function _advance(StoredMandate storage stored, Row calldata row, bytes32 domain) private returns (uint64) {
        uint32 count = row.count;
        if (count == 0) revert EmptyRow(row.agent);
        Field.requireElement(row.head);
        Field.requireElement(row.newBase);
        uint64 seq = stored.seq + count;
        uint256 spent = uint256(stored.spent) + row.debit;
        bytes32 payment = TypedHashes.hashPayment(seq, spent, row.head, row.lineHash);
        bytes32 digest = MessageHashUtils.toTypedDataHash(domain, payment);
        StrictECDSA.requireSigner(row.agent, digest, row.v, row.r, row.s);
        uint256 total = spent + stored.directSpent;
        if (total > stored.budget) revert BudgetExceeded(row.agent, total, stored.budget);

        stored.seq = seq;
        stored.spent = uint64(spent);
        stored.base = row.newBase;
        return uint64(spent);
    }

    function _requireLimits(Mandate calldata mandate) private view {
        if (mandate.budget == 0) revert ZeroBudget();
        if (mandate.paymentCap == 0 || mandate.paymentCap > mandate.budget) {
            revert PaymentCapOutOfRange(mandate.paymentCap, mandate.budget);
        }
        uint256 latest = block.timestamp + MAX_DURATION;
        if (mandate.validUntil <= block.timestamp || mandate.validUntil > latest) {
            revert EndOutOfRange(mandate.validUntil, block.timestamp + 1, latest);
        }
        if (mandate.processor == address(0)) revert ZeroProcessor();
        Field.requireElement(uint256(mandate.policyRoot));
    }

    function _requirePayees(Mandate calldata mandate) private view {
        uint256 count = mandate.payees.length;
        if (count > MAX_PAYEES) revert TooManyPayees(count, MAX_PAYEES);
        for (uint256 i = 0; i < count; ++i) {
            _requirePayee(mandate.payees[i], mandate.token);
        }
    }

    /// @dev Nobody could take out what these are paid.
    function _requirePayee(address payee, address token) private view {
        if (payee == address(0) || payee == token || payee == address(this)) revert InvalidPayee(payee);
        if (payee == address(escrow) || payee == settlement || payee == direct) revert InvalidPayee(payee);
        if (payee == claims || payee == address(processors)) revert InvalidPayee(payee);
    }

    /// @dev The list must be the one that the owner signed, so it has at most {MAX_PAYEES}; an empty one means anyone.
    function _requireListed(
        StoredMandate storage stored,
        address agent,
        address payee,
        address[] calldata payees
    ) private view {
        if (TypedHashes.hashPayees(payees) != stored.payeesHash) revert PayeesMismatch(agent);
        bool listed = payees.length == 0;
        for (uint256 i = 0; i < payees.length && !listed; ++i) {
            listed = payees[i] == payee;
        }
        if (!listed) revert PayeeNotAllowed(agent, payee);
    }

    function _requireOwnerSignature(address owner, bytes32 digest, bytes calldata signature) private view {
        if (!SignatureChecker.isValidSignatureNowCalldata(owner, digest, signature))
            revert InvalidOwnerSignature(owner);
    }

    function _requireSettleable(
        StoredMandate storage stored,
        address agent,
        address processor,
        uint32 tokenId
    ) private view returns (State state) {
        state = stored.state;
        uint256 closesAt = stored.closesAt;
        if ((state != State.Open && state != State.Revoked) || block.timestamp >= closesAt) {
            revert MandateNotSettleable(agent, state, block.timestamp, closesAt);
        }
        if (stored.processor != processor) revert WrongProcessor(agent, processor, stored.processor);
        if (stored.tokenId != tokenId) revert WrongToken(agent, stored.tokenId, tokenId);
    }

    /// @dev The row has been written: `stored.seq` is where it ends.
    function _requireLedgerAcknowledged(StoredMandate storage stored, Row calldata row) private view {
        _requireAnswered(stored, row.agent);
        if (!stored.acknowledged) return;
        if (stored.seq > stored.acknowledgedSeq) {
            revert AboveAcknowledged(row.agent, stored.seq, stored.acknowledgedSeq);
        }
        if (stored.seq == stored.acknowledgedSeq && bytes32(row.head) != stored.acknowledgedHead) {
            revert HeadNotAcknowledged(row.agent, row.head, stored.acknowledgedHead);
        }
    }

    function _requireDirectAcknowledged(StoredMandate storage stored, address agent, uint256 directSpent) private view {
        _requireAnswered(stored, agent);
        if (stored.acknowledged && directSpent > stored.acknowledgedDirect) {
            revert AboveAcknowledged(agent, directSpent, stored.acknowledgedDirect);
        }
    }

    function _requireAnswered(StoredMandate storage stored, address agent) private view {
        uint256 deadline = stored.revokedAt + _acknowledge;
        if (!stored.acknowledged && block.timestamp > deadline) {
            revert NotAcknowledged(agent, block.timestamp, deadline);
        }
    }

    /// @dev New business only: nothing that moves or returns money asks the gate.
    function _askGate(Mandate calldata mandate) private view {
        if (!Gate.mayOpen(gate, mandate.owner, mandate.agent, mandate.token, mandate.budget)) {
            revert RefusedByGate(mandate.owner);
        }
        for (uint256 i = 0; i < mandate.payees.length; ++i) {
            if (!Gate.mayBePaid(gate, mandate.payees[i], mandate.token)) revert RefusedByGate(mandate.payees[i]);
        }
    }

    function _stateOf(StoredMandate storage stored) private view returns (State) {
        State state = stored.state;
        return state == State.Open && block.timestamp > stored.validUntil ? State.Expired : state;
    }

    function _remainingOf(StoredMandate storage stored) private view returns (uint64) {
        return stored.budget - stored.spent - stored.directSpent - stored.returned;
    }

    /// @dev It was revoked, fell back, or its time is over: after this second only who does not know it yet is honest.
    function _endedAt(StoredMandate storage stored) private view returns (uint40) {
        return stored.revokedAt != 0 ? stored.revokedAt : stored.closesAt - _tail();
    }

    /// @dev From the end of a mandate until it can be closed: the last receipt's promise, its grace, and the claims.
    function _tail() private view returns (uint40) {
        return _settleBy + _grace + _claim;
    }

    function _requireWindow(uint256 index, uint256 value, uint256 minimum, uint256 maximum) private pure {
        if (value < minimum || value > maximum) revert WindowOutOfRange(index, value, minimum, maximum);
    }
}
