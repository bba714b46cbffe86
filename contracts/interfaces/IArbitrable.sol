// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IArbitrator} from "./IArbitrator.sol";

/// @title What an arbitrator rules over (ERC-792)
interface IArbitrable {
    /// @notice The ruling of a dispute has arrived.
    event Ruling(IArbitrator indexed arbitrator, uint256 indexed disputeID, uint256 ruling);

    /// @notice Gives the ruling of a dispute that this contract created. Only its arbitrator.
    /// @param ruling 1 … the choices of the dispute; 0 means that the arbitrator does not decide.
    function rule(uint256 disputeID, uint256 ruling) external;
}
