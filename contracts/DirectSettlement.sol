// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Strings} from "@openzeppelin/contracts/utils/Strings.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";

import {IDirectSettlement} from "./interfaces/IDirectSettlement.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";
import {IMandateRegistry} from "./interfaces/IMandateRegistry.sol";
import {StrictECDSA} from "./lib/StrictECDSA.sol";

/// @title DirectSettlement
/// @dev Calls the registry and the escrow only, and neither calls a token on the way: nothing can re-enter.
contract DirectSettlement is IDirectSettlement {
    using BitMaps for BitMaps.BitMap;

    /// @dev EIP-5267: a domain of name, version, chainId and verifyingContract.
    bytes1 private constant DOMAIN_FIELDS = hex"0f";
    bytes32 private constant TRANSFER_TYPEHASH = keccak256(
        "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
        "bytes32 nonce)"
    );
    bytes32 private constant DEBIT_TYPEHASH = keccak256(
        "Mandate(address owner,address token,address payee,uint256 amount,uint256 nonce,uint256 deadline,bytes32 ref)"
    );
    bytes32 private constant DEBIT_NAME_HASH = keccak256("AEP2DebitWallet");
    bytes32 private constant VERSION_HASH = keccak256("1");

    /// @inheritdoc IDirectSettlement
    IMandateRegistry public immutable registry;
    IEscrow private immutable _escrow;

    /// @inheritdoc IDirectSettlement
    mapping(address authorizer => mapping(bytes32 nonce => bool)) public authorizationState;
    /// @dev AEP2 nonces that count share their slots, 256 to one.
    mapping(address agent => BitMaps.BitMap) private _debitNonces;

    constructor(IMandateRegistry registry_) {
        registry = registry_;
        _escrow = registry_.escrow();
    }

    /// @inheritdoc IDirectSettlement
    function transferWithAuthorizations(Transfer[] calldata transfers) external {
        if (transfers.length == 0) revert EmptySettlement();
        address domainToken = address(0);
        bytes32 separator = bytes32(0);
        for (uint256 i = 0; i < transfers.length; ++i) {
            address token = registry.tokenOf(transfers[i].from);
            if (token == address(0)) revert NoMandate(transfers[i].from);
            if (token != domainToken) (domainToken, separator) = (token, domainSeparatorOf(token));
            _transfer(transfers[i], token, separator);
        }
    }

    /// @inheritdoc IDirectSettlement
    function debit(Debit[] calldata debits) external {
        if (debits.length == 0) revert EmptySettlement();
        bytes32 separator = debitDomainSeparator();
        for (uint256 i = 0; i < debits.length; ++i) {
            _debit(debits[i], separator);
        }
    }

    /// @inheritdoc IDirectSettlement
    function debitState(address agent, uint256 nonce) external view returns (bool) {
        return _debitNonces[agent].get(nonce);
    }

    /// @inheritdoc IDirectSettlement
    function domainSeparatorOf(address token) public view returns (bytes32) {
        return _domainSeparator(keccak256(bytes(eip712NameOf(token))));
    }

    /// @inheritdoc IDirectSettlement
    function debitDomainSeparator() public view returns (bytes32) {
        return _domainSeparator(DEBIT_NAME_HASH);
    }

    /// @inheritdoc IDirectSettlement
    function eip712NameOf(address token) public pure returns (string memory) {
        return string.concat("Bursar ", Strings.toChecksumHexString(token));
    }

    function _transfer(Transfer calldata one, address token, bytes32 separator) private {
        if (block.timestamp <= one.validAfter) revert AuthorizationNotYetValid(block.timestamp, one.validAfter);
        if (block.timestamp >= one.validBefore) revert AuthorizationExpired(block.timestamp, one.validBefore);
        if (authorizationState[one.from][one.nonce]) revert AuthorizationUsedAlready(one.from, one.nonce);
        StrictECDSA.requireSigner(
            one.from,
            MessageHashUtils.toTypedDataHash(separator, _hashTransfer(one)),
            one.signature
        );
        uint256 units = _unitsOf(token, one.value);

        authorizationState[one.from][one.nonce] = true;
        emit AuthorizationUsed(one.from, one.nonce);
        // The registry refuses units above the payment cap, which is below 2^40: an event that is cut does not last.
        emit TransferSettled(one.from, one.to, one.nonce, uint64(units));

        registry.payDirect(msg.sender, one.from, token, one.to, units, one.payees);
    }

    function _debit(Debit calldata one, bytes32 separator) private {
        if (block.timestamp > one.deadline) revert DebitExpired(block.timestamp, one.deadline);
        BitMaps.BitMap storage nonces = _debitNonces[one.owner];
        if (nonces.get(one.nonce)) revert DebitUsedAlready(one.owner, one.nonce);
        StrictECDSA.requireSigner(
            one.owner,
            MessageHashUtils.toTypedDataHash(separator, _hashDebit(one)),
            one.signature
        );
        uint256 units = _unitsOf(one.token, one.amount);

        nonces.set(one.nonce);
        // As in _transfer, units that uint64 would cut revert below.
        emit DebitSettled(one.owner, one.payee, one.nonce, uint64(units), one.ref);

        registry.payDirect(msg.sender, one.owner, one.token, one.payee, units, one.payees);
    }

    /// @dev Reverts with {IEscrow.TokenNotRegistered}: no mandate is of such a token.
    function _unitsOf(address token, uint256 value) private view returns (uint256) {
        uint256 unitScale = _escrow.unitScale(token);
        if (value % unitScale != 0) revert FractionalUnits(value, unitScale);
        return value / unitScale;
    }

    /// @dev Computed at each call, so that a chain that forks with another id takes no signature of the first.
    function _domainSeparator(bytes32 nameHash) private view returns (bytes32) {
        return
            MessageHashUtils.toDomainSeparator(
                DOMAIN_FIELDS,
                nameHash,
                VERSION_HASH,
                block.chainid,
                address(this),
                bytes32(0)
            );
    }

    function _hashTransfer(Transfer calldata one) private pure returns (bytes32) {
        return
            keccak256(
                abi.encode(TRANSFER_TYPEHASH, one.from, one.to, one.value, one.validAfter, one.validBefore, one.nonce)
            );
    }

    function _hashDebit(Debit calldata one) private pure returns (bytes32) {
        return
            keccak256(
                abi.encode(
                    DEBIT_TYPEHASH,
                    one.owner,
                    one.token,
                    one.payee,
                    one.amount,
                    one.nonce,
                    one.deadline,
                    one.ref
                )
            );
    }
}
