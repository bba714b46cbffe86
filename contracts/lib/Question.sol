// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title A question as the core asks it
/// @notice For tools off chain: its creation code, run by `eth_call` and never deployed, asks a contract by static call and
/// answers with four words: whether it succeeded, the length of the answer, its first word (0 if it is shorter), and the gas
/// that it took.
contract Question {
    constructor(address target, uint256 gasLimit, bytes memory data) {
        assembly ("memory-safe") {
            mstore(0x00, 0)
            let before := gas()
            let success := staticcall(gasLimit, target, add(data, 0x20), mload(data), 0x00, 0x20)
            let used := sub(before, gas())
            let word := mul(mload(0x00), gt(returndatasize(), 31))
            let answer := mload(0x40)
            mstore(answer, success)
            mstore(add(answer, 0x20), returndatasize())
            mstore(add(answer, 0x40), word)
            mstore(add(answer, 0x60), used)
            return(answer, 0x80)
        }
    }
}
