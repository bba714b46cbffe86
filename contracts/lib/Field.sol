// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title The scalar field of BN254
library Field {
    /// @notice The field's order, r.
    uint256 internal constant ORDER = 21888242871839275222246405745257275088548364400416034343698204186575808495617;

    error NotAFieldElement(uint256 value, uint256 order);

    /// @notice Refuses a value that is not below the order: it would be another name of a smaller one.
    function requireElement(uint256 value) internal pure {
        if (value >= ORDER) revert NotAFieldElement(value, ORDER);
    }
}
