// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";

import {Takings} from "./Takings.sol";

/// @notice One payment, signed by `owner`; the signature in the short form of EIP-2098.
struct Debit {
    address owner;
    address payee;
    uint128 amount;
    uint64 nonce;
    uint64 deadline;
    bytes32 ref;
    bytes32 r;
    bytes32 vs;
}

/// @title A wallet that is debited payment by payment, in the way of AEP2
/// @notice Leaner than AEP2's: payees are credited instead of paid by a token transfer each, nonces share slots, and there
/// is no withdrawal for owners.
contract DebitWallet is EIP712, Takings {
    using BitMaps for BitMaps.BitMap;

    bytes32 private constant DEBIT_TYPEHASH = keccak256(
        "Debit(address owner,address payee,uint128 amount,uint64 nonce,uint64 deadline,bytes32 ref)"
    );

    mapping(address owner => uint256) public balanceOf;
    mapping(address owner => BitMaps.BitMap) private _nonces;

    event Debited(address indexed owner, address indexed payee, uint256 amount, bytes32 ref);

    error DebitExpired(uint256 time, uint256 deadline);
    error DebitUsedAlready(address owner, uint256 nonce);
    error WrongSigner(address owner, address recovered);

    constructor(IERC20 token_) EIP712("Debit Wallet", "1") Takings(token_) {}

    function deposit(uint256 amount) external {
        balanceOf[msg.sender] += amount;
        _pull(amount);
    }

    function settle(Debit[] calldata debits) external {
        for (uint256 i = 0; i < debits.length; ++i) {
            _settle(debits[i]);
        }
    }

    function _settle(Debit calldata one) private {
        if (block.timestamp > one.deadline) revert DebitExpired(block.timestamp, one.deadline);
        BitMaps.BitMap storage nonces = _nonces[one.owner];
        if (nonces.get(one.nonce)) revert DebitUsedAlready(one.owner, one.nonce);
        bytes32 structHash = keccak256(
            abi.encode(DEBIT_TYPEHASH, one.owner, one.payee, one.amount, one.nonce, one.deadline, one.ref)
        );
        address recovered = ECDSA.recover(_hashTypedDataV4(structHash), one.r, one.vs);
        if (recovered != one.owner) revert WrongSigner(one.owner, recovered);

        nonces.set(one.nonce);
        balanceOf[one.owner] -= one.amount;
        takingsOf[one.payee].total += one.amount;
        emit Debited(one.owner, one.payee, one.amount, one.ref);
    }
}
