// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {DirectSettlement} from "../../contracts/DirectSettlement.sol";
import {IDirectSettlement} from "../../contracts/interfaces/IDirectSettlement.sol";
import {IMandateRegistry} from "../../contracts/interfaces/IMandateRegistry.sol";

/// @notice The cheat codes that this test needs.
interface Vm {
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function warp(uint256 time) external;
    function chainId(uint256 id) external;
}

/// @title Whatever an agent signs pays exactly that, once, in its time, on its chain
/// @dev The test itself stands in for the registry and the escrow, and keeps what it was asked to pay.
contract DirectSettlementTest {
    Vm private constant VM = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 private constant KEY_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
    uint256 private constant HOME = 31_337;
    uint256 private constant END = type(uint256).max;
    address private constant TOKEN = address(0x70);
    bytes32 private constant DEBIT_TYPEHASH = keccak256(
        "Mandate(address owner,address token,address payee,uint256 amount,uint256 nonce,uint256 deadline,bytes32 ref)"
    );
    bytes32 private constant TRANSFER_TYPEHASH = keccak256(
        "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
        "bytes32 nonce)"
    );

    DirectSettlement private _direct;

    /// @notice {IEscrow.unitScale} and what {IMandateRegistry.payDirect} was called with.
    uint256 private _scale = 1;
    uint256 private _calls;
    bytes32 private _paid;

    error Accepted(bool accepted, bool expected);
    error Paid(uint256 calls, uint256 expected);
    error PaidOtherwise(bytes32 paid, bytes32 expected);

    function setUp() external {
        _direct = new DirectSettlement(IMandateRegistry(address(this)));
    }

    function testFuzz_pays_once_and_in_its_time(
        uint256 key,
        IDirectSettlement.Transfer memory one,
        uint64 time,
        int8 after_,
        int8 before
    ) external {
        uint256 present = uint256(time) + 1_000;
        VM.warp(present);
        one.validAfter = uint256(int256(present) + after_);
        one.validBefore = uint256(int256(present) + before);
        _sign(key, one);

        bool inTime = after_ < 0 && before > 0;
        _submit(one, inTime);
        _submit(one, false);
        if (_direct.authorizationState(one.from, one.nonce) != inTime) revert Accepted(!inTime, inTime);
    }

    function testFuzz_pays_exactly_what_was_signed_or_nothing(
        uint256 key,
        IDirectSettlement.Transfer memory one,
        uint8 decimals,
        bool whole
    ) external {
        _scale = 10 ** (decimals % 19);
        if (whole) one.value = (one.value / _scale) * _scale;
        _alwaysValid(key, one);
        _submit(one, one.value % _scale == 0);
    }

    function testFuzz_pays_nothing_that_differs_in_a_bit(
        uint256 key,
        IDirectSettlement.Transfer memory one,
        uint8 member,
        uint8 bit
    ) external {
        _alwaysValid(key, one);
        uint256 flip = 1 << bit;
        member %= 4;
        if (member == 0) one.to = address(uint160(one.to) ^ uint160(1 << (bit % 160)));
        if (member == 1) one.value ^= flip;
        if (member == 2) one.nonce = bytes32(uint256(one.nonce) ^ flip);
        if (member == 3) one.signature[bit % 65] ^= bytes1(uint8(1 << (bit % 8)));
        _submit(one, false);
    }

    function testFuzz_pays_on_the_chain_of_its_signature_alone(
        uint256 key,
        IDirectSettlement.Transfer memory one,
        uint32 elsewhere
    ) external {
        VM.chainId(HOME);
        _alwaysValid(key, one);
        VM.chainId(HOME + 1 + elsewhere);
        _submit(one, false);
        VM.chainId(HOME);
        _submit(one, true);
    }

    function testFuzz_debits_exactly_what_was_signed_once_and_in_time(
        uint256 key,
        IDirectSettlement.Debit memory one,
        uint8 decimals,
        uint64 time,
        int8 deadline
    ) external {
        _scale = 10 ** (decimals % 19);
        uint256 present = uint256(time) + 1_000;
        VM.warp(present);
        one.deadline = uint256(int256(present) + deadline);
        _signDebit(key, one);

        bool expected = deadline >= 0 && one.amount % _scale == 0;
        _submitDebit(one, expected);
        _submitDebit(one, false);
        if (_direct.debitState(one.owner, one.nonce) != expected) revert Accepted(!expected, expected);
    }

    /// @notice Plays {IMandateRegistry.payDirect}.
    function payDirect(
        address processor,
        address agent,
        address token,
        address payee,
        uint256 units,
        address[] calldata payees
    ) external {
        ++_calls;
        _paid = keccak256(abi.encode(processor, agent, token, payee, units, payees));
    }

    /// @notice Plays {IMandateRegistry.escrow}.
    function escrow() external view returns (address) {
        return address(this);
    }

    /// @notice Plays {IEscrow.unitScale}.
    function unitScale(address) external view returns (uint256) {
        return _scale;
    }

    /// @notice Plays {IMandateRegistry.tokenOf}.
    function tokenOf(address) external pure returns (address) {
        return TOKEN;
    }

    function _alwaysValid(uint256 key, IDirectSettlement.Transfer memory one) private view {
        (one.validAfter, one.validBefore) = (0, END);
        _sign(key, one);
    }

    function _sign(uint256 key, IDirectSettlement.Transfer memory one) private view {
        one.from = VM.addr(_keyOf(key));
        bytes32 message = keccak256(
            abi.encode(TRANSFER_TYPEHASH, one.from, one.to, one.value, one.validAfter, one.validBefore, one.nonce)
        );
        one.signature = _signature(key, _direct.domainSeparatorOf(TOKEN), message);
    }

    function _signDebit(uint256 key, IDirectSettlement.Debit memory one) private view {
        one.owner = VM.addr(_keyOf(key));
        bytes32 message = keccak256(
            abi.encode(DEBIT_TYPEHASH, one.owner, one.token, one.payee, one.amount, one.nonce, one.deadline, one.ref)
        );
        one.signature = _signature(key, _direct.debitDomainSeparator(), message);
    }

    function _signature(uint256 key, bytes32 separator, bytes32 message) private pure returns (bytes memory) {
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", separator, message));
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(_keyOf(key), digest);
        return abi.encodePacked(r, s, v);
    }

    function _keyOf(uint256 seed) private pure returns (uint256) {
        return (seed % (KEY_ORDER - 1)) + 1;
    }

    function _submit(IDirectSettlement.Transfer memory one, bool expected) private {
        IDirectSettlement.Transfer[] memory transfers = new IDirectSettlement.Transfer[](1);
        transfers[0] = one;
        _call(
            abi.encodeCall(_direct.transferWithAuthorizations, (transfers)),
            expected,
            abi.encode(address(this), one.from, TOKEN, one.to, one.value / _scale, one.payees)
        );
    }

    function _submitDebit(IDirectSettlement.Debit memory one, bool expected) private {
        IDirectSettlement.Debit[] memory debits = new IDirectSettlement.Debit[](1);
        debits[0] = one;
        _call(
            abi.encodeCall(_direct.debit, (debits)),
            expected,
            abi.encode(address(this), one.owner, one.token, one.payee, one.amount / _scale, one.payees)
        );
    }

    /// @dev Accepted or not, the registry hears of it exactly then, and in exactly these words.
    function _call(bytes memory data, bool expected, bytes memory meant) private {
        uint256 calls = _calls;
        (bool accepted, ) = address(_direct).call(data);
        if (accepted != expected) revert Accepted(accepted, expected);
        if (_calls != calls + (expected ? 1 : 0)) revert Paid(_calls - calls, expected ? 1 : 0);
        if (expected && _paid != keccak256(meant)) revert PaidOtherwise(_paid, keccak256(meant));
    }
}
