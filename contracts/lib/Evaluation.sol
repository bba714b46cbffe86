// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title The batch at the challenge
/// @notice The chain's half of the circuit's equation T = E(z) + Σ amount/(z + payee), with the sum as one fraction.
/// @dev Assembly, since a batch does this for every row and credit; mocks/PlainEvaluation.sol is the plain version, and
/// a fuzz test keeps the two equal.
library Evaluation {
    /// @dev r, as {Field.ORDER}; assembly takes only direct constants.
    uint256 private constant R = 21888242871839275222246405745257275088548364400416034343698204186575808495617;

    /// @notice Words of a row: agent, seq, base, head, newBase, policyRoot, packed.
    uint256 internal constant ROW_WORDS = 7;
    /// @notice Words of a credit: payee, amount.
    uint256 internal constant CREDIT_WORDS = 2;

    /// @notice E: Horner's rule over the last five words of each row, starting from 1 so that it binds their number.
    /// @param rows whole rows of {ROW_WORDS}.
    function evaluateRows(bytes memory rows, uint256 z) internal pure returns (uint256 e) {
        assembly ("memory-safe") {
            e := 1
            let row := add(rows, 0x20)
            let end := add(row, mload(rows))
            for {} lt(row, end) {
                row := add(row, 0xe0)
            } {
                e := addmod(mulmod(e, z, R), mload(add(row, 0x40)), R)
                e := addmod(mulmod(e, z, R), mload(add(row, 0x60)), R)
                e := addmod(mulmod(e, z, R), mload(add(row, 0x80)), R)
                e := addmod(mulmod(e, z, R), mload(add(row, 0xa0)), R)
                e := addmod(mulmod(e, z, R), mload(add(row, 0xc0)), R)
            }
        }
    }

    /// @notice Σ amount/(z + payee) as num/den.
    /// @param credits whole credits of {CREDIT_WORDS}.
    function sumCredits(bytes memory credits, uint256 z) internal pure returns (uint256 num, uint256 den) {
        assembly ("memory-safe") {
            den := 1
            let credit := add(credits, 0x20)
            let end := add(credit, mload(credits))
            for {} lt(credit, end) {
                credit := add(credit, 0x40)
            } {
                let factor := addmod(z, mload(credit), R)
                num := addmod(mulmod(num, factor, R), mulmod(mload(add(credit, 0x20)), den, R), R)
                den := mulmod(den, factor, R)
            }
        }
    }

    /// @notice Whether den ≠ 0 and (evaluation − e)·den = num.
    /// @param evaluation T, below the field order.
    function agrees(uint256 evaluation, uint256 e, uint256 num, uint256 den) internal pure returns (bool) {
        return den != 0 && mulmod(addmod(evaluation, R - e, R), den, R) == num;
    }
}
