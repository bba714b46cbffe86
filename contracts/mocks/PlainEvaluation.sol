// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title {Evaluation} without assembly
library PlainEvaluation {
    uint256 private constant R = 21888242871839275222246405745257275088548364400416034343698204186575808495617;

    function evaluateRows(uint256[] memory rows, uint256 z) internal pure returns (uint256 e) {
        e = 1;
        for (uint256 i = 0; i < rows.length; ++i) {
            if (i % 7 >= 2) e = addmod(mulmod(e, z, R), rows[i], R);
        }
    }

    function sumCredits(uint256[] memory credits, uint256 z) internal pure returns (uint256 num, uint256 den) {
        den = 1;
        for (uint256 i = 0; i < credits.length; i += 2) {
            uint256 factor = addmod(z, credits[i], R);
            num = addmod(mulmod(num, factor, R), mulmod(credits[i + 1], den, R), R);
            den = mulmod(den, factor, R);
        }
    }
}
