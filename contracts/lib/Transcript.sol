// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title What a batch leaves on chain
/// @notice The hash of all that a batch settled: the challenge z is derived from it, and later a part of the batch is
/// shown by it.
library Transcript {
    bytes32 private constant BATCH_TAG = keccak256("bursar.batch");

    /// @param rowsHash keccak256 of seven words a row, with the stored positions.
    /// @param creditsHash keccak256 of two words a credit.
    function compute(
        address settlement,
        bytes32 circuitId,
        uint256 commitment,
        bytes32 rowsHash,
        bytes32 creditsHash
    ) internal view returns (bytes32) {
        return
            keccak256(abi.encode(BATCH_TAG, block.chainid, settlement, circuitId, commitment, rowsHash, creditsHash));
    }
}
