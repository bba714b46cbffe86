// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Field} from "./Field.sol";

/// @title The agent's hash-chained ledger, as far as the chain knows it
library Ledger {
    /// @notice Lines on a page.
    uint64 internal constant PAGE_LINES = 7;

    bytes32 private constant GENESIS_TAG = keccak256("bursar.genesis");

    /// @notice The head of an empty ledger: no two chains, registries or agents share it.
    function genesis(address registry, address agent) internal view returns (uint256) {
        return uint256(keccak256(abi.encode(GENESIS_TAG, block.chainid, registry, agent))) % Field.ORDER;
    }

    /// @notice Lines of the first page of a row that earlier batches settled.
    function offsetOf(uint64 seq) internal pure returns (uint64) {
        return seq % PAGE_LINES;
    }

    /// @notice debit + count·2^96 + offset·2^128: the scalars of a row in one field element.
    function packRow(uint64 debit, uint32 count, uint64 seq) internal pure returns (uint256) {
        return uint256(debit) | (uint256(count) << 96) | (uint256(offsetOf(seq)) << 128);
    }

    /// @notice The count of a packed row.
    function countOf(uint256 packed) internal pure returns (uint32) {
        return uint32(packed >> 96);
    }
}
