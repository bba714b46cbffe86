// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {MandateRegistry} from "../../contracts/MandateRegistry.sol";
import {Credit} from "../../contracts/interfaces/Batch.sol";
import {IEscrow} from "../../contracts/interfaces/IEscrow.sol";
import {IIdentityGate} from "../../contracts/interfaces/IIdentityGate.sol";
import {IMandateRegistry} from "../../contracts/interfaces/IMandateRegistry.sol";
import {IProcessorRegistry} from "../../contracts/interfaces/IProcessorRegistry.sol";
import {Mandate} from "../../contracts/interfaces/Messages.sol";

/// @notice The cheat codes that these tests need.
interface Vm {
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function warp(uint256 time) external;
}

/// @title What the fuzz tests of signed messages share
/// @dev The messages' types and the domain are spelled out again here, from docs/spec/encoding.md. The test itself stands
/// in for everything around the real registry: escrow, processors, gate, settlement, and an owner that is a contract.
abstract contract SignatureTest {
    /// @notice What was signed, and how it is put. All but the first must be refused.
    enum Form {
        Right,
        FlippedBit,
        HighS,
        SmallV,
        OtherV,
        Compact,
        TooLong,
        OtherKey,
        OtherChain,
        OtherContract,
        OtherMessage
    }

    Vm internal constant VM = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 internal constant KEY_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
    uint256 internal constant FIELD = 21888242871839275222246405745257275088548364400416034343698204186575808495617;
    uint256 internal constant NOW = 1_800_000_000;
    address internal constant TOKEN = address(0x70);
    uint64 internal constant BUDGET = 1 << 50;
    uint40 internal constant CAP = type(uint40).max;
    bytes32 internal constant MANDATE_TYPEHASH = keccak256(
        "Mandate(address owner,address agent,address token,uint64 budget,uint40 paymentCap,uint64 validUntil,"
        "address processor,address[] payees,bytes32 policyRoot,bytes32 termsHash)"
    );
    bytes32 internal constant LINE_TYPEHASH = keccak256("Line(address payee,uint40 amount,bytes32 ref)");
    bytes32 internal constant PAYMENT_TYPEHASH = keccak256(
        "Payment(uint64 seq,uint64 spent,bytes32 head,Line line)Line(address payee,uint40 amount,bytes32 ref)"
    );
    bytes32 internal constant DOMAIN_TYPEHASH = keccak256(
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    );

    MandateRegistry internal _registry;
    /// @dev The key that {processorOf} and {isReceiptKey} know.
    address internal _receiptKey;

    error Accepted(bool accepted, bool expected, Form form);

    function setUp() public virtual {
        VM.warp(NOW);
        _registry = new MandateRegistry(
            IMandateRegistry.Links({
                escrow: IEscrow(address(this)),
                settlement: address(this),
                direct: address(this),
                claims: address(this),
                processors: IProcessorRegistry(address(this)),
                gate: IIdentityGate(address(this))
            }),
            IMandateRegistry.Windows(1 hours, 2 hours, 1 hours, 24 hours, 72 hours)
        );
    }

    /// @notice Plays {IEscrow.lock}.
    function lock(uint32, address, uint256) external {}

    /// @notice Plays {IEscrow.settle}.
    function settle(uint32, uint256, Credit[] calldata) external pure returns (address) {
        return TOKEN;
    }

    /// @notice Plays {IProcessorRegistry.cover}.
    function cover(address, address, uint256, uint40) external {}

    /// @notice Plays {IProcessorRegistry.processorOf}.
    function processorOf(address) external view returns (IProcessorRegistry.Processor memory processor) {
        processor.receiptKey = _receiptKey;
    }

    /// @notice Plays {IProcessorRegistry.isReceiptKey}.
    function isReceiptKey(address, address key, uint256) external view returns (bool) {
        return key == _receiptKey;
    }

    /// @notice Plays {IEscrow.registerToken}.
    function registerToken(address) external pure returns (uint32) {
        return 1;
    }

    /// @notice Plays {IEscrow.tokenOf}.
    function tokenOf(uint32) external pure returns (address) {
        return TOKEN;
    }

    /// @notice Plays {IIdentityGate.mayOpen}.
    function mayOpen(address, address, address, uint64) external pure returns (bool) {
        return true;
    }

    /// @notice Plays {IIdentityGate.mayBePaid}.
    function mayBePaid(address, address) external pure returns (bool) {
        return true;
    }

    /// @notice Plays an owner that agrees to everything.
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        return this.isValidSignature.selector;
    }

    /// @dev Opens a mandate of this owner for the key's agent; anyone may be paid.
    function _open(address owner, uint256 ownerKey, uint256 agentKey) internal returns (address agent) {
        agent = _addressOf(agentKey);
        Mandate memory mandate = Mandate({
            owner: owner,
            agent: agent,
            token: TOKEN,
            budget: BUDGET,
            paymentCap: CAP,
            validUntil: uint64(NOW + 1 days),
            processor: address(0x9),
            payees: new address[](0),
            policyRoot: 0,
            termsHash: 0
        });
        bytes32 message = _hashMandate(mandate);
        _registry.open(
            mandate,
            _signature(Form.Right, ownerKey, message, message, 0),
            _signature(Form.Right, agentKey, message, message, 0)
        );
    }

    /// @dev The signature of `message`, or what only resembles it. `other` is another message, `noise` what differs.
    function _signature(
        Form form,
        uint256 seed,
        bytes32 message,
        bytes32 other,
        uint256 noise
    ) internal view returns (bytes memory) {
        uint256 key = _keyOf(form == Form.OtherKey ? _another(seed, noise) : seed);
        uint256 chain = form == Form.OtherChain ? block.chainid + 1 + (noise >> 192) : block.chainid;
        address domain = form == Form.OtherContract ? address(uint160(address(_registry)) ^ 1) : address(_registry);
        bytes32 digest = _digest(chain, domain, form == Form.OtherMessage ? other : message);
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(key, digest);
        if (form == Form.HighS) return abi.encodePacked(r, KEY_ORDER - uint256(s), v == 27 ? uint8(28) : uint8(27));
        if (form == Form.SmallV) return abi.encodePacked(r, s, v - 27);
        if (form == Form.OtherV) return abi.encodePacked(r, s, uint8(noise) / 2 == 13 ? 29 : uint8(noise) | 32);
        if (form == Form.Compact) return abi.encodePacked(r, uint256(s) | (uint256(v - 27) << 255));
        if (form == Form.TooLong) return abi.encodePacked(r, s, v, uint8(noise));
        bytes memory signature = abi.encodePacked(r, s, v);
        if (form == Form.FlippedBit) signature[noise % 65] ^= bytes1(uint8(1 << ((noise >> 8) % 8)));
        return signature;
    }

    /// @dev Calls the contract and compares.
    function _call(address target, bytes memory data, Form form) internal {
        (bool accepted, ) = target.call(data);
        if (accepted != (form == Form.Right)) revert Accepted(accepted, form == Form.Right, form);
    }

    function _digest(uint256 chainId, address domain, bytes32 message) internal pure returns (bytes32) {
        bytes32 separator = keccak256(
            abi.encode(DOMAIN_TYPEHASH, keccak256("Bursar"), keccak256("1"), chainId, domain)
        );
        return keccak256(abi.encodePacked(hex"1901", separator, message));
    }

    function _hashMandate(Mandate memory mandate) internal pure returns (bytes32) {
        return
            keccak256(
                bytes.concat(
                    abi.encode(MANDATE_TYPEHASH, mandate.owner, mandate.agent, mandate.token, mandate.budget),
                    abi.encode(mandate.paymentCap, mandate.validUntil, mandate.processor),
                    abi.encode(keccak256(abi.encodePacked(mandate.payees)), mandate.policyRoot, mandate.termsHash)
                )
            );
    }

    function _hashPayment(uint64 seq, uint64 spent, bytes32 head, bytes32 lineHash) internal pure returns (bytes32) {
        return keccak256(abi.encode(PAYMENT_TYPEHASH, seq, spent, head, lineHash));
    }

    function _addressOf(uint256 seed) internal pure returns (address) {
        return VM.addr(_keyOf(seed));
    }

    function _keyOf(uint256 seed) internal pure returns (uint256) {
        return (seed % (KEY_ORDER - 1)) + 1;
    }

    /// @dev A seed of another key.
    function _another(uint256 seed, uint256 noise) internal pure returns (uint256) {
        return (seed % (KEY_ORDER - 1)) ^ (1 << (noise % 128));
    }

    function _formOf(uint8 form) internal pure returns (Form) {
        return Form(form % (uint8(Form.OtherMessage) + 1));
    }
}
