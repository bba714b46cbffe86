// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IArbitrable} from "./IArbitrable.sol";

/// @title Who decides what no rule can (ERC-792)
/// @notice The part of ERC-792 that a dispute needs. Rulings are pushed by {IArbitrable.rule}; appeals, if an arbitrator has
/// them, are its own matter and come before that.
interface IArbitrator {
    enum DisputeStatus {
        Waiting,
        Appealable,
        Solved
    }

    event DisputeCreation(uint256 indexed disputeID, IArbitrable indexed arbitrable);

    /// @notice Creates a dispute of the caller, which pays {arbitrationCost}.
    /// @param choices how many rulings there are, besides 0.
    /// @param extraData whatever this arbitrator reads in it.
    function createDispute(uint256 choices, bytes calldata extraData) external payable returns (uint256 disputeID);

    /// @notice What a dispute with this `extraData` costs, in the chain's own coin.
    function arbitrationCost(bytes calldata extraData) external view returns (uint256 cost);

    function disputeStatus(uint256 disputeID) external view returns (DisputeStatus status);

    /// @notice The ruling as it stands, 0 if there is none.
    function currentRuling(uint256 disputeID) external view returns (uint256 ruling);
}
