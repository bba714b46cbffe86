// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {ERC7739} from "@openzeppelin/contracts/utils/cryptography/signers/draft-ERC7739.sol";
import {SignerECDSA} from "@openzeppelin/contracts/utils/cryptography/signers/SignerECDSA.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {IWallet} from "../interfaces/IWallet.sol";

/// @title KeyWallet
/// @notice An owner with two keys. The signer is at hand every day: it signs mandates, revocations and closings, and can
/// move nothing by itself. The admin lies in a safe: it alone sends calls, such as withdrawals from the escrow, and it
/// replaces a signer that is lost or stolen. Deposits need neither: anyone may deposit for the wallet.
///
/// Signatures are ERC-7739: the typed data stays readable to who signs, nested with the wallet's own domain {name
/// "KeyWallet", version "1", chainId, verifyingContract}, so that one for another account of the same key is none here.
contract KeyWallet is IWallet, ERC7739, SignerECDSA {
    address public immutable admin;

    error OnlyAdmin(address caller, address admin);
    error ZeroAdmin();

    modifier onlyAdmin() {
        if (msg.sender != admin) revert OnlyAdmin(msg.sender, admin);
        _;
    }

    constructor(address admin_, address signer_) EIP712("KeyWallet", "1") SignerECDSA(signer_) {
        if (admin_ == address(0)) revert ZeroAdmin();
        admin = admin_;
        emit SignerChanged(address(0), signer_);
    }

    receive() external payable {}

    /// @notice Replaces the signer. What the previous one signed and nobody has used is void.
    /// @param signer_ the zero address for none, until another is named.
    function rotate(address signer_) external onlyAdmin {
        emit SignerChanged(signer(), signer_);
        _setSigner(signer_);
    }

    /// @notice Calls `target` for the wallet, or sends it `value` if `data` is empty. What it reverts with is passed on.
    function execute(
        address target,
        uint256 value,
        bytes calldata data
    ) external payable onlyAdmin returns (bytes memory) {
        if (data.length > 0) return Address.functionCallWithValue(target, data, value);
        Address.sendValue(payable(target), value);
        return "";
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external view virtual returns (bool) {
        return
            interfaceId == type(IWallet).interfaceId ||
            interfaceId == type(IERC1271).interfaceId ||
            interfaceId == type(IERC165).interfaceId;
    }

    /// @inheritdoc IWallet
    function signer() public view override(IWallet, SignerECDSA) returns (address) {
        return SignerECDSA.signer();
    }

    /// @inheritdoc IERC1271
    function isValidSignature(
        bytes32 hash,
        bytes calldata signature
    ) public view virtual override(IERC1271, ERC7739) returns (bytes4) {
        return ERC7739.isValidSignature(hash, signature);
    }
}
