// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {IEIP3009} from "../interfaces/IEIP3009.sol";

/// @title Test money that behaves like USDC
/// @notice Six decimals, EIP-2612, EIP-3009, ERC-5267, a blocklist and a pause. Anyone may mint.
contract TestUSD is ERC20, ERC20Permit, Pausable, Ownable, IEIP3009 {
    bytes32 public constant TRANSFER_WITH_AUTHORIZATION_TYPEHASH = keccak256(
        "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
        "bytes32 nonce)"
    );
    bytes32 public constant RECEIVE_WITH_AUTHORIZATION_TYPEHASH = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
        "bytes32 nonce)"
    );
    bytes32 public constant CANCEL_AUTHORIZATION_TYPEHASH = keccak256(
        "CancelAuthorization(address authorizer,bytes32 nonce)"
    );

    /// @notice Whether an EIP-3009 nonce is used or cancelled.
    mapping(address authorizer => mapping(bytes32 nonce => bool)) public authorizationState;
    mapping(address account => bool) public blocked;

    event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);
    event AuthorizationCanceled(address indexed authorizer, bytes32 indexed nonce);

    error AccountBlocked(address account);
    error AuthorizationSpent(address authorizer, bytes32 nonce);
    error AuthorizationNotValidAt(uint256 time, uint256 validAfter, uint256 validBefore);
    error AuthorizationSigner(address recovered, address authorizer);
    error CallerNotRecipient(address caller, address to);

    constructor() ERC20("Bursar Test Dollar", "tUSD") ERC20Permit("Bursar Test Dollar") Ownable(msg.sender) {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function setBlocked(address account, bool value) external onlyOwner {
        blocked[account] = value;
    }

    function pause() external onlyOwner {
        _pause();
    }

    function unpause() external onlyOwner {
        _unpause();
    }

    function transferWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        bytes32 structHash = keccak256(
            abi.encode(TRANSFER_WITH_AUTHORIZATION_TYPEHASH, from, to, value, validAfter, validBefore, nonce)
        );
        _requireTime(validAfter, validBefore);
        _useAuthorization(from, nonce, ECDSA.recover(_hashTypedDataV4(structHash), v, r, s));
        _transfer(from, to, value);
    }

    /// @inheritdoc IEIP3009
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        if (msg.sender != to) revert CallerNotRecipient(msg.sender, to);
        bytes32 structHash = keccak256(
            abi.encode(RECEIVE_WITH_AUTHORIZATION_TYPEHASH, from, to, value, validAfter, validBefore, nonce)
        );
        _requireTime(validAfter, validBefore);
        _useAuthorization(from, nonce, ECDSA.recover(_hashTypedDataV4(structHash), v, r, s));
        _transfer(from, to, value);
    }

    function cancelAuthorization(address authorizer, bytes32 nonce, uint8 v, bytes32 r, bytes32 s) external {
        bytes32 structHash = keccak256(abi.encode(CANCEL_AUTHORIZATION_TYPEHASH, authorizer, nonce));
        _spendNonce(authorizer, nonce, ECDSA.recover(_hashTypedDataV4(structHash), v, r, s));
        emit AuthorizationCanceled(authorizer, nonce);
    }

    function decimals() public pure override returns (uint8) {
        return 6;
    }

    function _useAuthorization(address authorizer, bytes32 nonce, address recovered) private {
        _spendNonce(authorizer, nonce, recovered);
        emit AuthorizationUsed(authorizer, nonce);
    }

    function _spendNonce(address authorizer, bytes32 nonce, address recovered) private {
        if (recovered != authorizer) revert AuthorizationSigner(recovered, authorizer);
        if (authorizationState[authorizer][nonce]) revert AuthorizationSpent(authorizer, nonce);
        authorizationState[authorizer][nonce] = true;
    }

    function _requireTime(uint256 validAfter, uint256 validBefore) private view {
        if (block.timestamp <= validAfter || block.timestamp >= validBefore) {
            revert AuthorizationNotValidAt(block.timestamp, validAfter, validBefore);
        }
    }

    function _update(address from, address to, uint256 value) internal override whenNotPaused {
        if (blocked[from]) revert AccountBlocked(from);
        if (blocked[to] || to == address(this)) revert AccountBlocked(to);
        super._update(from, to, value);
    }
}
