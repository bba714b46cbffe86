// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title A smart account that one key controls
contract OwnerWallet is IERC1271 {
    address private immutable _key;

    error OnlyKey(address caller);

    constructor(address key) {
        _key = key;
    }

    function execute(address target, bytes calldata call) external returns (bytes memory answer) {
        if (msg.sender != _key) revert OnlyKey(msg.sender);
        bool success;
        (success, answer) = target.call(call);
        if (success) return answer;
        assembly ("memory-safe") {
            revert(add(answer, 0x20), mload(answer))
        }
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        (address recovered, , ) = ECDSA.tryRecoverCalldata(digest, signature);
        return recovered == _key ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// @title A smart account that answers badly
contract BadOwnerWallet {
    enum Answer {
        Refuses,
        Reverts,
        BurnsGas,
        ReturnsShort,
        ReturnsBomb,
        ReturnsDirty
    }

    Answer private immutable _answer;

    error NotToday();

    constructor(Answer answer) {
        _answer = answer;
    }

    function isValidSignature(bytes32, bytes calldata) external view returns (bytes4) {
        if (_answer == Answer.Refuses) return bytes4(0xffffffff);
        if (_answer == Answer.Reverts) revert NotToday();
        if (_answer == Answer.BurnsGas) while (true) {}
        bytes32 magic = bytes32(IERC1271.isValidSignature.selector);
        if (_answer == Answer.ReturnsShort) _return(magic, 4);
        if (_answer == Answer.ReturnsBomb) _return(0, 1_000_000);
        _return(magic | bytes32(uint256(1)), 32);
        return 0;
    }

    function _return(bytes32 word, uint256 length) private pure {
        assembly ("memory-safe") {
            let answer := mload(0x40)
            mstore(answer, word)
            return(answer, length)
        }
    }
}
