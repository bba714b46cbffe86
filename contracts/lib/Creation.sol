// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title Where a contract's creations stand
library Creation {
    /// @notice The address of a contract's n-th creation: keccak256(rlp([address, n])), n below 128.
    function addressOf(address creator, uint8 n) internal pure returns (address) {
        return address(uint160(uint256(keccak256(abi.encodePacked(hex"d694", creator, n)))));
    }
}
