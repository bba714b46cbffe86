// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IMandateRegistry} from "../../contracts/interfaces/IMandateRegistry.sol";
import {IProcessorRegistry} from "../../contracts/interfaces/IProcessorRegistry.sol";
import {Receipt} from "../../contracts/interfaces/Messages.sol";
import {ReceiptedPayment} from "../../contracts/interfaces/ReceiptedPayment.sol";
import {ReceiptedPayments} from "../../contracts/lib/ReceiptedPayments.sol";

/// @notice The cheat codes that this test needs.
interface Vm {
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function warp(uint256 time) external;
}

/// @title A payment counts when its agent and its processor's key signed exactly it, in its windows
/// @dev The test itself stands in for the two registries.
contract ReceiptedPaymentsTest {
    using ReceiptedPayments for ReceiptedPayment;

    Vm private constant VM = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 private constant KEY_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
    uint40 private constant SETTLE_BY = 1 hours;
    uint40 private constant GRACE = 2 hours;
    uint40 private constant ACKNOWLEDGE = 1 hours;
    uint40 private constant CLAIM = 72 hours;
    uint40 private constant ENDED_AT = 1_000_000_000;
    uint40 private constant CLAIMS_UNTIL = ENDED_AT + SETTLE_BY + GRACE + CLAIM;
    uint40 private constant LATEST = ENDED_AT + ACKNOWLEDGE + SETTLE_BY;
    address private constant PROCESSOR = address(0x9);
    bytes32 private constant LINE_TYPEHASH = keccak256("Line(address payee,uint40 amount,bytes32 ref)");
    bytes32 private constant PAYMENT_TYPEHASH = keccak256(
        "Payment(uint64 seq,uint64 spent,bytes32 head,Line line)Line(address payee,uint40 amount,bytes32 ref)"
    );
    bytes32 private constant RECEIPT_TYPEHASH = keccak256(
        "Receipt(address agent,uint64 seq,address payee,uint40 amount,bytes32 ref,bytes32 head,uint64 settleBy,"
        "uint64 logIndex)"
    );

    bytes32 private _separator = keccak256("home");
    address private _agent;
    address private _receiptKey;
    uint256 private _keyUntil = type(uint256).max;
    /// @dev For how long after the claim window it counts.
    uint40 private _longer;

    error Accepted(bool accepted, bool expected);
    error SameId(uint8 member);
    error OtherId(bytes32 id, bytes32 expected);
    error Differs(bytes32 hash, bytes32 expected);

    function testFuzz_counts_when_both_signed_exactly_it(
        uint256 agentKey,
        uint256 receiptKey,
        ReceiptedPayment memory payment
    ) external {
        _sign(agentKey, receiptKey, payment);
        _check(payment, true);
    }

    function testFuzz_counts_in_its_windows_alone(
        uint256 agentKey,
        uint256 receiptKey,
        ReceiptedPayment memory payment,
        uint32 longer,
        int8 now_,
        int8 settleBy,
        int8 keyUntil
    ) external {
        _longer = longer;
        payment.settleBy = uint64(int64(uint64(LATEST)) + settleBy);
        _keyUntil = uint256(int256(uint256(payment.settleBy)) + keyUntil);
        _sign(agentKey, receiptKey, payment, payment.settleBy);
        VM.warp(uint256(int256(uint256(CLAIMS_UNTIL) + longer) + now_));
        _check(payment, now_ <= 0 && settleBy <= 0 && keyUntil >= 0);
    }

    function testFuzz_counts_for_nothing_that_differs_in_a_bit(
        uint256 agentKey,
        uint256 receiptKey,
        ReceiptedPayment memory payment,
        uint8 member,
        uint8 bit
    ) external {
        _sign(agentKey, receiptKey, payment);
        member %= 10;
        if (member == 9) payment.settleBy ^= uint64(1) << (bit % 29);
        else _flip(payment, member, bit);
        _check(payment, false);
    }

    function testFuzz_counts_by_no_other_key(
        uint256 agentKey,
        uint256 receiptKey,
        uint256 otherKey,
        ReceiptedPayment memory payment
    ) external {
        _sign(agentKey, receiptKey, payment);
        (bytes memory byAgent, bytes memory byProcessor) = (payment.agentSignature, payment.processorSignature);
        address key = VM.addr(_keyOf(otherKey));
        (bytes32 paymentHash, bytes32 receiptHash) = _hashesOf(payment);
        payment.agentSignature = _signature(otherKey, paymentHash);
        _check(payment, key == _agent);
        payment.agentSignature = byAgent;
        payment.processorSignature = _signature(otherKey, receiptHash);
        _check(payment, key == _receiptKey);
        // Each key's over the other's message.
        payment.processorSignature = byAgent;
        _check(payment, false);
        (payment.agentSignature, payment.processorSignature) = (byProcessor, byProcessor);
        _check(payment, false);
    }

    function testFuzz_counts_in_its_domain_alone(
        uint256 agentKey,
        uint256 receiptKey,
        ReceiptedPayment memory payment,
        bytes32 elsewhere
    ) external {
        bytes32 home = _separator;
        _sign(agentKey, receiptKey, payment);
        _separator = elsewhere;
        _check(payment, elsewhere == home);
        _separator = home;
        _check(payment, true);
    }

    function testFuzz_is_known_by_what_is_paid_whatever_is_promised(
        ReceiptedPayment memory payment,
        ReceiptedPayment memory other,
        uint8 member,
        uint8 bit
    ) external view {
        bytes32 id = this.idOf(payment);
        (other.agent, other.seq, other.head, other.line) = (payment.agent, payment.seq, payment.head, payment.line);
        if (this.idOf(other) != id) revert OtherId(this.idOf(other), id);
        member %= 6;
        if (member == 5) other.agent = address(uint160(other.agent) ^ uint160(1 << (bit % 160)));
        else _flip(other, member, bit);
        if (this.idOf(other) == id) revert SameId(member);
    }

    function testFuzz_has_the_receipt_that_repeats_it(ReceiptedPayment memory payment) external view {
        (, bytes32 expected) = _hashesOf(payment);
        bytes32 hash = keccak256(abi.encode(RECEIPT_TYPEHASH, this.receiptOf(payment)));
        if (hash != expected) revert Differs(hash, expected);
    }

    function verify(ReceiptedPayment calldata payment) external view returns (ReceiptedPayments.Context memory) {
        (IMandateRegistry mandates, IProcessorRegistry processors) = (
            IMandateRegistry(address(this)),
            IProcessorRegistry(address(this))
        );
        if (_longer == 0) return ReceiptedPayments.verify(mandates, processors, payment);
        return ReceiptedPayments.verify(mandates, processors, payment, _longer);
    }

    function idOf(ReceiptedPayment calldata payment) external pure returns (bytes32) {
        return payment.idOf();
    }

    function receiptOf(ReceiptedPayment calldata payment) external pure returns (Receipt memory) {
        return payment.receiptOf();
    }

    /// @notice Plays {IMandateRegistry.claimsOf}.
    function claimsOf(address agent) external view returns (address, address, uint64, uint40, uint40, bool) {
        return (agent == _agent ? PROCESSOR : address(0), address(0x70), 3, ENDED_AT, CLAIMS_UNTIL, false);
    }

    /// @notice Plays {IMandateRegistry.domainSeparator}.
    function domainSeparator() external view returns (bytes32) {
        return _separator;
    }

    /// @notice Plays {IProcessorRegistry.isReceiptKey}.
    function isReceiptKey(address processor, address key, uint256 settleBy) external view returns (bool) {
        return processor == PROCESSOR && key == _receiptKey && settleBy <= _keyUntil;
    }

    /// @notice Plays {IMandateRegistry.windows}.
    function windows() external pure returns (IMandateRegistry.Windows memory) {
        return IMandateRegistry.Windows(SETTLE_BY, GRACE, ACKNOWLEDGE, 24 hours, CLAIM);
    }

    /// @dev Settles by some time that may be promised, and is claimed in time.
    function _sign(uint256 agentKey, uint256 receiptKey, ReceiptedPayment memory payment) private {
        _sign(agentKey, receiptKey, payment, payment.settleBy % (LATEST + 1));
        VM.warp(CLAIMS_UNTIL);
    }

    function _sign(uint256 agentKey, uint256 receiptKey, ReceiptedPayment memory payment, uint64 settleBy) private {
        (_agent, _receiptKey) = (VM.addr(_keyOf(agentKey)), VM.addr(_keyOf(receiptKey)));
        (payment.agent, payment.settleBy) = (_agent, settleBy);
        (bytes32 paymentHash, bytes32 receiptHash) = _hashesOf(payment);
        payment.agentSignature = _signature(agentKey, paymentHash);
        payment.processorSignature = _signature(receiptKey, receiptHash);
    }

    /// @dev 0 to 4 are what the id binds, up to 8 what signatures bind besides.
    function _flip(ReceiptedPayment memory payment, uint8 member, uint8 bit) private pure {
        if (member == 0) payment.seq ^= uint64(1) << (bit % 64);
        if (member == 1) payment.head ^= bytes32(uint256(1) << bit);
        if (member == 2) payment.line.payee = address(uint160(payment.line.payee) ^ uint160(1 << (bit % 160)));
        if (member == 3) payment.line.amount ^= uint40(1) << (bit % 40);
        if (member == 4) payment.line.ref ^= bytes32(uint256(1) << bit);
        if (member == 5) payment.spent ^= uint64(1) << (bit % 64);
        if (member == 6) payment.logIndex ^= uint64(1) << (bit % 64);
        if (member == 7) payment.agentSignature[bit % 65] ^= bytes1(uint8(1 << (bit % 8)));
        if (member == 8) payment.processorSignature[bit % 65] ^= bytes1(uint8(1 << (bit % 8)));
    }

    function _hashesOf(
        ReceiptedPayment memory payment
    ) private pure returns (bytes32 paymentHash, bytes32 receiptHash) {
        bytes32 lineHash = keccak256(abi.encode(LINE_TYPEHASH, payment.line));
        paymentHash = keccak256(abi.encode(PAYMENT_TYPEHASH, payment.seq, payment.spent, payment.head, lineHash));
        receiptHash = keccak256(
            abi.encode(
                RECEIPT_TYPEHASH,
                payment.agent,
                payment.seq,
                payment.line,
                payment.head,
                payment.settleBy,
                payment.logIndex
            )
        );
    }

    function _signature(uint256 key, bytes32 message) private view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(
            _keyOf(key),
            keccak256(abi.encodePacked(hex"1901", _separator, message))
        );
        return abi.encodePacked(r, s, v);
    }

    function _check(ReceiptedPayment memory payment, bool expected) private view {
        (bool accepted, ) = address(this).staticcall(abi.encodeCall(this.verify, (payment)));
        if (accepted != expected) revert Accepted(accepted, expected);
    }

    function _keyOf(uint256 seed) private pure returns (uint256) {
        return (seed % (KEY_ORDER - 1)) + 1;
    }
}
