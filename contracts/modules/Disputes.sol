// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IArbitrable} from "../interfaces/IArbitrable.sol";
import {IArbitrator} from "../interfaces/IArbitrator.sol";
import {IClaims} from "../interfaces/IClaims.sol";
import {Delivery, Hold, IDisputeModule, Purchase, Quote} from "../interfaces/IDisputeModule.sol";
import {IEscrow} from "../interfaces/IEscrow.sol";
import {IMandateRegistry} from "../interfaces/IMandateRegistry.sol";
import {IProcessorRegistry} from "../interfaces/IProcessorRegistry.sol";
import {Receipt} from "../interfaces/Messages.sol";
import {PurchaseHashes} from "../lib/PurchaseHashes.sol";
import {StrictECDSA} from "../lib/StrictECDSA.sol";
import {TypedHashes} from "../lib/TypedHashes.sol";

/// @title Disputes
/// @dev The escrow's sub-account of a hold has the salt keccak256(abi.encode(agent, payee, holdback)). `known` of a hold is
/// always the sum of its tranches from the cursor on and of what is frozen, and never above its balance.
contract Disputes is IDisputeModule, ReentrancyGuardTransient {
    struct Tranche {
        uint40 maturesAt;
        uint216 amount;
    }

    struct Account {
        uint256 known;
        uint256 frozen;
        uint256 cursor;
        Tranche[] tranches;
    }

    uint256 private constant MAX_HOLDBACK = 7 days;
    /// @dev What arrives within a 64th of the holdback matures together: at most 66 tranches wait at a time.
    uint256 private constant PARTS = 64;
    uint256 private constant CHOICES = 2;
    uint256 private constant FOR_OWNER = 2;

    /// @inheritdoc IDisputeModule
    IMandateRegistry public immutable registry;
    /// @inheritdoc IDisputeModule
    IEscrow public immutable escrow;
    /// @inheritdoc IDisputeModule
    IProcessorRegistry public immutable processors;
    /// @inheritdoc IDisputeModule
    IArbitrator public immutable arbitrator;

    /// @inheritdoc IDisputeModule
    uint256 public disputeCount;
    /// @inheritdoc IDisputeModule
    mapping(address agent => mapping(uint64 seq => uint256 id)) public disputeIdOf;
    /// @inheritdoc IDisputeModule
    mapping(uint256 disputeID => uint256 id) public escalatedOf;

    Deadlines private _deadlines;
    bytes private _arbitratorData;
    mapping(uint256 id => Dispute) private _disputes;
    mapping(address hold => Account) private _accounts;

    /// @param arbitratorData begins the `extraData` of each dispute at the arbitrator; who escalated follows in 32 bytes.
    constructor(
        IMandateRegistry registry_,
        IArbitrator arbitrator_,
        bytes memory arbitratorData,
        Deadlines memory deadlines_
    ) {
        _requireDeadline(0, deadlines_.deliver, 0, 7 days);
        _requireDeadline(1, deadlines_.answer, 1 hours, 14 days);
        _requireDeadline(2, deadlines_.escalate, 1 hours, 14 days);
        _requireDeadline(3, deadlines_.rule, 1 days, 30 days);
        registry = registry_;
        escrow = registry_.escrow();
        processors = registry_.processors();
        arbitrator = arbitrator_;
        _arbitratorData = arbitratorData;
        _deadlines = deadlines_;
    }

    /// @inheritdoc IDisputeModule
    function collect(Hold calldata hold) external nonReentrant returns (uint256) {
        return _collect(hold);
    }

    /// @inheritdoc IDisputeModule
    function release(Hold calldata hold, uint256 maxTranches) external nonReentrant returns (uint256 paid) {
        _collect(hold);
        address from = holdOf(hold.agent, hold.payee, hold.holdback);
        Account storage account = _accounts[from];
        uint256 cursor = account.cursor;
        uint256 end = cursor + Math.min(maxTranches, account.tranches.length - cursor);
        for (; cursor < end && account.tranches[cursor].maturesAt <= block.timestamp; ++cursor) {
            paid += account.tranches[cursor].amount;
            delete account.tranches[cursor];
        }
        account.cursor = cursor;
        if (paid == 0) return 0;
        emit Released(from, hold.agent, hold.payee, paid);
        _pay(hold.agent, hold.payee, hold.holdback, hold.payee, paid);
    }

    /// @inheritdoc IDisputeModule
    function file(
        Kind kind,
        Hold calldata hold,
        Purchase calldata purchase,
        bytes32 evidenceHash
    ) external nonReentrant returns (uint256) {
        if (kind != Kind.NotDelivered && kind != Kind.Other) revert KindNeedsProof(kind);
        return _file(kind, hold, purchase, evidenceHash);
    }

    /// @inheritdoc IDisputeModule
    function fileDoubleCharge(
        Hold calldata hold,
        Purchase calldata purchase,
        Purchase calldata earlier,
        bytes32 evidenceHash
    ) external nonReentrant returns (uint256) {
        Receipt calldata first = earlier.receipt;
        Receipt calldata second = purchase.receipt;
        if (first.seq >= second.seq || first.ref != second.ref) {
            revert NotChargedBefore(second.seq, first.seq, second.ref, first.ref);
        }
        _requirePurchase(hold, earlier);
        return _file(Kind.DoubleCharge, hold, purchase, evidenceHash);
    }

    /// @inheritdoc IDisputeModule
    function fileOverQuote(
        Hold calldata hold,
        Purchase calldata purchase,
        Quote calldata quote,
        bytes calldata signature,
        bytes32 evidenceHash
    ) external nonReentrant returns (uint256 id) {
        Receipt calldata receipt = purchase.receipt;
        bool ofPayee = quote.payee == hold.payee || quote.payee == receipt.payee;
        if (!ofPayee || quote.ref != receipt.ref) revert QuoteMismatch(quote.payee, quote.ref);
        if (quote.amount >= receipt.amount) revert QuoteNotExceeded(receipt.amount, quote.amount);
        uint256 paidAt = Math.saturatingSub(receipt.settleBy, registry.windows().settleBy);
        if (quote.expiresAt < paidAt) revert QuoteExpired(quote.expiresAt, paidAt);
        StrictECDSA.requireSigner(hold.payee, _digest(PurchaseHashes.hashQuote(quote)), signature);

        id = _open(Kind.OverQuote, hold, purchase, receipt.amount - quote.amount, evidenceHash);
        _finish(id, Status.Refunded);
    }

    /// @inheritdoc IDisputeModule
    function answerDelivery(uint256 id, Delivery calldata delivery, bytes calldata signature) external nonReentrant {
        Dispute storage dispute = _before(id, Status.Filed);
        if (dispute.kind == Kind.Other) revert WrongAnswer(id, dispute.kind);
        if (delivery.agent != dispute.agent || delivery.seq != dispute.seq || delivery.ref != dispute.ref) {
            revert DeliveryMismatch(id, delivery.agent, delivery.seq, delivery.ref);
        }
        if (delivery.deliveredAt > dispute.deliverBy) {
            revert DeliveredTooLate(id, delivery.deliveredAt, dispute.deliverBy);
        }
        if (msg.sender != dispute.payee) {
            StrictECDSA.requireSigner(dispute.payee, _digest(PurchaseHashes.hashDelivery(delivery)), signature);
        }
        _answer(id, dispute, delivery.bodyHash);
    }

    /// @inheritdoc IDisputeModule
    function answer(uint256 id, bytes32 evidenceHash) external nonReentrant {
        Dispute storage dispute = _before(id, Status.Filed);
        if (dispute.kind != Kind.Other) revert WrongAnswer(id, dispute.kind);
        if (msg.sender != dispute.payee) revert OnlyPayee(msg.sender, dispute.payee);
        _answer(id, dispute, evidenceHash);
    }

    /// @inheritdoc IDisputeModule
    /// @dev The arbitrator may do here what it likes: the dispute is escalated already, and its deadline runs.
    function escalate(uint256 id) external payable nonReentrant returns (uint256 disputeID) {
        Dispute storage dispute = _before(id, Status.Answered);
        bool isParty = msg.sender == dispute.owner || msg.sender == dispute.agent || msg.sender == dispute.payee;
        if (!isParty) revert OnlyParty(msg.sender, dispute.owner, dispute.payee);
        bytes memory extraData = bytes.concat(_arbitratorData, abi.encode(msg.sender));
        uint256 cost = arbitrator.arbitrationCost(extraData);
        if (msg.value != cost) revert WrongFee(msg.value, cost);

        uint40 deadline = uint40(block.timestamp + _deadlines.rule);
        (dispute.status, dispute.deadline) = (Status.Escalated, deadline);
        disputeID = arbitrator.createDispute{value: cost}(CHOICES, extraData);
        if (escalatedOf[disputeID] != 0) revert DisputeIdUsed(disputeID);
        escalatedOf[disputeID] = id;
        emit Escalated(id, disputeID, msg.sender, cost, deadline);
    }

    /// @inheritdoc IArbitrable
    function rule(uint256 disputeID, uint256 ruling) external nonReentrant {
        if (msg.sender != address(arbitrator)) revert OnlyArbitrator(msg.sender, address(arbitrator));
        uint256 id = escalatedOf[disputeID];
        if (id == 0) revert UnknownDispute(disputeID);
        _before(id, Status.Escalated);
        emit Ruling(arbitrator, disputeID, ruling);
        _finish(id, ruling == FOR_OWNER ? Status.Refunded : Status.PaidToPayee);
    }

    /// @inheritdoc IDisputeModule
    function refund(uint256 id) external nonReentrant {
        Dispute storage dispute = _disputes[id];
        _requireUnresolved(id, dispute.status);
        if (msg.sender != dispute.payee) revert OnlyPayee(msg.sender, dispute.payee);
        _finish(id, Status.Refunded);
    }

    /// @inheritdoc IDisputeModule
    function resolve(uint256 id) external nonReentrant {
        Dispute storage dispute = _disputes[id];
        _requireUnresolved(id, dispute.status);
        if (block.timestamp <= dispute.deadline) revert DeadlineNotOver(id, block.timestamp, dispute.deadline);
        _finish(id, dispute.status == Status.Filed ? Status.Refunded : Status.PaidToPayee);
    }

    /// @inheritdoc IDisputeModule
    function escalationCost(uint256 id) external view returns (uint256) {
        return arbitrator.arbitrationCost(bytes.concat(_arbitratorData, abi.encode(_disputes[id].owner)));
    }

    /// @inheritdoc IDisputeModule
    function disputeOf(uint256 id) external view returns (Dispute memory) {
        return _disputes[id];
    }

    /// @inheritdoc IDisputeModule
    function holdStateOf(address hold) external view returns (HoldState memory) {
        Account storage account = _accounts[hold];
        return HoldState(account.known, account.frozen, account.tranches.length, account.cursor);
    }

    /// @inheritdoc IDisputeModule
    function trancheOf(address hold, uint256 index) external view returns (uint256 amount, uint256 maturesAt) {
        Tranche storage tranche = _accounts[hold].tranches[index];
        return (tranche.amount, tranche.maturesAt);
    }

    /// @inheritdoc IDisputeModule
    function deadlines() external view returns (Deadlines memory) {
        return _deadlines;
    }

    /// @inheritdoc IDisputeModule
    function holdOf(address agent, address payee, uint40 holdback) public view returns (address) {
        if (holdback > MAX_HOLDBACK) revert HoldbackTooLong(holdback, MAX_HOLDBACK);
        // The escrow pays neither of them.
        if (payee == address(0) || payee == address(escrow)) revert InvalidPayee(payee);
        return escrow.accountOf(address(this), _saltOf(agent, payee, holdback));
    }

    function _collect(Hold calldata hold) private returns (uint256 fresh) {
        address here = holdOf(hold.agent, hold.payee, hold.holdback);
        Account storage account = _accounts[here];
        fresh = escrow.balanceOf(_tokenOf(hold.agent), here) - account.known;
        if (fresh == 0) return 0;
        // A token of such a supply is collected in more than one call.
        fresh = Math.min(fresh, type(uint128).max);

        uint256 part = hold.holdback / PARTS + 1;
        uint40 maturesAt = uint40(Math.ceilDiv(block.timestamp + hold.holdback, part) * part);
        uint256 length = account.tranches.length;
        account.known += fresh;
        if (length > account.cursor && account.tranches[length - 1].maturesAt == maturesAt) {
            account.tranches[length - 1].amount += uint216(fresh);
        } else {
            account.tranches.push(Tranche(maturesAt, uint216(fresh)));
        }
        emit Collected(here, hold.agent, hold.payee, fresh, maturesAt);
    }

    function _file(
        Kind kind,
        Hold calldata hold,
        Purchase calldata purchase,
        bytes32 evidenceHash
    ) private returns (uint256 id) {
        id = _open(kind, hold, purchase, purchase.receipt.amount, evidenceHash);
        _disputes[id].status = Status.Filed;
    }

    /// @dev Checks a payment, freezes `units` of it and records the dispute; the caller gives it a status.
    function _open(
        Kind kind,
        Hold calldata hold,
        Purchase calldata purchase,
        uint256 units,
        bytes32 evidenceHash
    ) private returns (uint256 id) {
        IMandateRegistry.MandateRecord memory mandate = registry.mandateOf(hold.agent);
        if (msg.sender != mandate.owner && msg.sender != hold.agent) {
            revert OnlyOwnerOrAgent(msg.sender, mandate.owner, hold.agent);
        }
        Receipt calldata receipt = purchase.receipt;
        _requireInTime(hold, receipt.settleBy, _requirePurchase(hold, purchase));
        uint256 filed = disputeIdOf[hold.agent][receipt.seq];
        if (filed != 0) revert DisputedAlready(hold.agent, receipt.seq, filed);

        _collect(hold);
        uint256 amount = units * escrow.unitScale(mandate.token);
        _freeze(receipt.payee, amount);
        id = ++disputeCount;
        disputeIdOf[hold.agent][receipt.seq] = id;
        _record(id, kind, hold, receipt, mandate.owner, amount, evidenceHash);
    }

    function _record(
        uint256 id,
        Kind kind,
        Hold calldata hold,
        Receipt calldata receipt,
        address owner,
        uint256 amount,
        bytes32 evidenceHash
    ) private {
        // The settle-by was checked to be near.
        uint40 deliverBy = uint40(receipt.settleBy) + _deadlines.deliver;
        uint256 from = kind == Kind.Other ? block.timestamp : Math.max(block.timestamp, deliverBy);
        Dispute storage dispute = _disputes[id];
        dispute.agent = hold.agent;
        dispute.seq = receipt.seq;
        dispute.kind = kind;
        dispute.payee = hold.payee;
        dispute.holdback = hold.holdback;
        dispute.owner = owner;
        dispute.deadline = uint40(from + _deadlines.answer);
        dispute.deliverBy = deliverBy;
        dispute.filer = msg.sender;
        dispute.amount = uint128(amount);
        dispute.ref = receipt.ref;
        dispute.evidenceHash = evidenceHash;
        emit Filed(id, hold.agent, hold.payee, receipt.seq, kind, amount, evidenceHash, dispute.deadline);
    }

    /// @dev Takes `amount` out of what waits, what matures first first: so each payment that still waits finds its money,
    /// whatever was disputed before.
    function _freeze(address hold, uint256 amount) private {
        Account storage account = _accounts[hold];
        uint256 length = account.tranches.length;
        uint256 first = length;
        while (first > account.cursor && account.tranches[first - 1].maturesAt > block.timestamp) --first;

        uint256 missing = amount;
        for (uint256 i = first; i < length && missing > 0; ++i) {
            uint256 taken = Math.min(missing, account.tranches[i].amount);
            account.tranches[i].amount -= uint216(taken);
            missing -= taken;
        }
        if (missing > 0) revert InsufficientHeld(hold, amount, amount - missing);
        account.frozen += amount;
    }

    function _answer(uint256 id, Dispute storage dispute, bytes32 answerHash) private {
        dispute.status = Status.Answered;
        dispute.answerHash = answerHash;
        dispute.deadline = uint40(block.timestamp + _deadlines.escalate);
        emit Answered(id, answerHash, dispute.deadline);
    }

    function _finish(uint256 id, Status status) private {
        Dispute storage dispute = _disputes[id];
        dispute.status = status;
        (address agent, address payee, uint40 holdback) = (dispute.agent, dispute.payee, dispute.holdback);
        uint256 amount = dispute.amount;
        address to = status == Status.Refunded ? dispute.owner : payee;
        _accounts[holdOf(agent, payee, holdback)].frozen -= amount;
        emit Resolved(id, to, status, amount);
        _pay(agent, payee, holdback, to, amount);
    }

    function _pay(address agent, address payee, uint40 holdback, address to, uint256 amount) private {
        _accounts[holdOf(agent, payee, holdback)].known -= amount;
        escrow.pay(_tokenOf(agent), _saltOf(agent, payee, holdback), to, amount);
    }

    /// @dev The dispute, if it is in this state and its deadline is not over.
    function _before(uint256 id, Status expected) private view returns (Dispute storage dispute) {
        dispute = _disputes[id];
        if (dispute.status != expected) revert WrongStatus(id, dispute.status, expected);
        if (block.timestamp > dispute.deadline) revert DeadlineOver(id, block.timestamp, dispute.deadline);
    }

    /// @dev Both signatures: the agent's alone could invent payments that claim the money of real ones.
    /// @return claimed whether a claim paid it, and no settlement.
    function _requirePurchase(Hold calldata hold, Purchase calldata purchase) private view returns (bool claimed) {
        Receipt calldata receipt = purchase.receipt;
        address here = holdOf(hold.agent, hold.payee, hold.holdback);
        if (receipt.agent != hold.agent || receipt.payee != here) revert NotOfHold(receipt.agent, receipt.payee, here);
        StrictECDSA.requireSigner(hold.agent, _digest(PurchaseHashes.hashPayment(purchase)), purchase.agentSignature);

        (address processor, , uint64 settled, , , ) = registry.claimsOf(hold.agent);
        bytes32 digest = _digest(TypedHashes.hashReceipt(receipt));
        (address key, , ) = ECDSA.tryRecoverCalldata(digest, purchase.processorSignature);
        if (key == address(0) || !processors.isReceiptKey(processor, key, receipt.settleBy)) {
            revert NotAReceiptKey(processor, key, receipt.settleBy);
        }
        claimed = receipt.seq > settled;
        if (claimed && !_isClaimPaid(receipt)) revert NotPaid(hold.agent, receipt.seq, settled);
    }

    /// @dev A receipt that was neither settled nor paid by a claim names nobody's money: owner and processor together could
    /// make any number of them, to take what waits for other payments. One that contradicts what is settled costs the bond.
    function _isClaimPaid(Receipt calldata receipt) private view returns (bool) {
        bytes32 id = keccak256(
            abi.encode(receipt.agent, receipt.seq, receipt.head, receipt.payee, receipt.amount, receipt.ref)
        );
        return IClaims(registry.claims()).paidOf(receipt.agent, receipt.seq) == id;
    }

    /// @dev A payment that settles at the very end of its grace can be disputed for the whole holdback after. One that a
    /// claim paid can be disputed as long as money waits: no newer payments come to its hold.
    function _requireInTime(Hold calldata hold, uint256 settleBy, bool claimed) private view {
        IMandateRegistry.Windows memory windows = registry.windows();
        uint256 latest = block.timestamp + windows.settleBy;
        if (settleBy > latest) revert SettleByTooLate(settleBy, latest);
        if (claimed) return;
        uint256 limit = settleBy + windows.grace + hold.holdback + hold.holdback / PARTS + 1;
        if (block.timestamp > limit) revert TooLateToFile(block.timestamp, limit);
    }

    function _tokenOf(address agent) private view returns (address token) {
        token = registry.tokenOf(agent);
        if (token == address(0)) revert NoMandate(agent);
    }

    function _digest(bytes32 structHash) private view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(registry.domainSeparator(), structHash);
    }

    function _requireUnresolved(uint256 id, Status status) private pure {
        bool open = status == Status.Filed || status == Status.Answered || status == Status.Escalated;
        if (!open) revert WrongStatus(id, status, Status.Filed);
    }

    function _saltOf(address agent, address payee, uint40 holdback) private pure returns (bytes32) {
        return keccak256(abi.encode(agent, payee, holdback));
    }

    function _requireDeadline(uint256 index, uint256 value, uint256 minimum, uint256 maximum) private pure {
        if (value < minimum || value > maximum) revert DeadlineOutOfRange(index, value, minimum, maximum);
    }
}
