// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

import {Credit, Row} from "./interfaces/Batch.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";
import {IMandateRegistry} from "./interfaces/IMandateRegistry.sol";
import {Mandate} from "./interfaces/Messages.sol";
import {Field} from "./lib/Field.sol";
import {Ledger} from "./lib/Ledger.sol";
import {StrictECDSA} from "./lib/StrictECDSA.sol";
import {TypedHashes} from "./lib/TypedHashes.sol";

/// @title MandateRegistry
contract MandateRegistry is IMandateRegistry, EIP712 {
    /// @dev Eight slots, in the order of use: settling a row reads the first four and writes the first two.
    struct StoredMandate {
        // 0
        uint256 base;
        // 1
        uint64 seq;
        uint64 spent;
        uint64 directSpent;
        uint64 budget;
        // 2; 16 bits are left for the flags of claims and fallback.
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
        // 7, written by a revocation; 152 bits are left for the processor's acknowledgement (ackSeq, ackedAt).
        uint40 revokedAt;
        uint64 revokedAfterSeq;
    }

    uint256 private constant MAX_DURATION = 90 days;
    uint256 private constant MAX_PAYEES = 8;

    /// @inheritdoc IMandateRegistry
    IEscrow public immutable escrow;
    /// @inheritdoc IMandateRegistry
    address public immutable settlement;
    /// @inheritdoc IMandateRegistry
    address public immutable direct;

    uint40 private immutable _settleBy;
    uint40 private immutable _grace;
    uint40 private immutable _acknowledge;
    uint40 private immutable _cure;
    uint40 private immutable _claim;

    mapping(address agent => StoredMandate) private _mandates;

    constructor(IEscrow escrow_, address settlement_, address direct_, Windows memory windows_) EIP712("Bursar", "1") {
        _requireWindow(0, windows_.settleBy, 10 minutes, 24 hours);
        _requireWindow(1, windows_.grace, 30 minutes, 6 hours);
        _requireWindow(2, windows_.acknowledge, 15 minutes, 6 hours);
        _requireWindow(3, windows_.cure, 6 hours, 24 hours);
        _requireWindow(4, windows_.claim, 48 hours, 14 days);

        escrow = escrow_;
        settlement = settlement_;
        direct = direct_;
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
    function close(address agent) external {
        StoredMandate storage stored = _mandates[agent];
        State state = _stateOf(stored);
        if (state == State.None || state == State.Closed) revert MandateNotOpen(agent, state);
        if (block.timestamp < stored.closesAt) revert TooEarlyToClose(agent, block.timestamp, stored.closesAt);

        uint64 remaining = _remainingOf(stored);
        stored.state = State.Closed;
        emit MandateClosed(agent, stored.owner, remaining);

        escrow.release(stored.tokenId, stored.owner, remaining);
    }

    /// @inheritdoc IMandateRegistry
    function settle(
        address processor,
        Row[] calldata rows,
        Credit[] calldata credits
    ) external returns (Position[] memory starts, address token, uint256 total) {
        if (msg.sender != settlement) revert OnlySettlement(msg.sender, settlement);
        if (rows.length == 0) revert EmptyBatch();

        starts = new Position[](rows.length);
        uint32 tokenId = _mandates[rows[0].agent].tokenId;
        address previous = address(0);
        for (uint256 i = 0; i < rows.length; ++i) {
            Row calldata row = rows[i];
            if (row.agent <= previous) revert AgentsNotIncreasing(previous, row.agent);
            previous = row.agent;
            StoredMandate storage stored = _mandates[row.agent];
            _requireSettleable(stored, row.agent, processor, tokenId);
            starts[i] = _positionOf(stored);
            _advance(stored, row, starts[i]);
            total += row.debit;
        }

        token = escrow.tokenOf(tokenId);
        escrow.settle(tokenId, total, credits);
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
        stored.directSpent = uint64(directSpent);

        Credit[] memory credits = new Credit[](1);
        credits[0] = Credit(payee, uint64(units));
        escrow.settle(tokenId, units, credits);
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
        return _positionOf(_mandates[agent]);
    }

    /// @inheritdoc IMandateRegistry
    function remainingOf(address agent) external view returns (uint64) {
        StoredMandate storage stored = _mandates[agent];
        return stored.state == State.Closed ? 0 : _remainingOf(stored);
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

        uint40 time = uint40(block.timestamp);
        stored.state = State.Revoked;
        stored.revokedAt = time;
        stored.revokedAfterSeq = afterSeq;
        stored.closesAt = time + _tail();
        emit MandateRevoked(agent, afterSeq, stored.closesAt);
    }

    /// @dev Moves base, seq and spent together; nothing else ever does.
    function _advance(StoredMandate storage stored, Row calldata row, Position memory start) private {
        if (row.count == 0) revert EmptyRow(row.agent);
        Field.requireElement(row.head);
        Field.requireElement(row.newBase);
        uint64 seq = start.seq + row.count;
        uint256 spent = uint256(start.spent) + row.debit;
        bytes32 digest = _hashTypedDataV4(TypedHashes.hashPayment(seq, spent, row.head, row.lineHash));
        StrictECDSA.requireSigner(row.agent, digest, row.v, row.r, row.s);
        uint256 total = spent + stored.directSpent;
        if (total > stored.budget) revert BudgetExceeded(row.agent, total, stored.budget);

        stored.base = row.newBase;
        stored.seq = seq;
        stored.spent = uint64(spent);
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
    ) private view {
        State state = stored.state;
        uint256 closesAt = stored.closesAt;
        if (state == State.None || state == State.Closed || block.timestamp >= closesAt) {
            revert MandateNotSettleable(agent, state, block.timestamp, closesAt);
        }
        if (stored.processor != processor) revert WrongProcessor(agent, processor, stored.processor);
        if (stored.tokenId != tokenId) revert WrongToken(agent, stored.tokenId, tokenId);
    }

    function _stateOf(StoredMandate storage stored) private view returns (State) {
        State state = stored.state;
        return state == State.Open && block.timestamp > stored.validUntil ? State.Expired : state;
    }

    function _positionOf(StoredMandate storage stored) private view returns (Position memory) {
        return Position(stored.base, stored.seq, stored.spent, uint256(stored.policyRoot));
    }

    function _remainingOf(StoredMandate storage stored) private view returns (uint64) {
        return stored.budget - stored.spent - stored.directSpent;
    }

    /// @dev From the end of a mandate until it can be closed: the last receipt's promise, its grace, and the claims.
    function _tail() private view returns (uint40) {
        return _settleBy + _grace + _claim;
    }

    function _requireWindow(uint256 index, uint256 value, uint256 minimum, uint256 maximum) private pure {
        if (value < minimum || value > maximum) revert WindowOutOfRange(index, value, minimum, maximum);
    }
}
