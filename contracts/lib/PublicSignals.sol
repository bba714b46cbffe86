// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title The public signals of the Batch circuit
library PublicSignals {
    /// @notice T: what the batch evaluates to at the challenge.
    uint256 internal constant EVALUATION = 0;
    /// @notice C: the commitment to every row value and every amount.
    uint256 internal constant COMMITMENT = 1;
    /// @notice z: the challenge.
    uint256 internal constant CHALLENGE = 2;

    function pack(
        uint256 evaluation,
        uint256 commitment,
        uint256 challenge
    ) internal pure returns (uint256[3] memory signals) {
        signals[EVALUATION] = evaluation;
        signals[COMMITMENT] = commitment;
        signals[CHALLENGE] = challenge;
    }
}
