// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IArbitrable} from "../interfaces/IArbitrable.sol";
import {IArbitrator} from "../interfaces/IArbitrator.sol";

/// @title An arbitrator that does what an arbitrator should not
contract HostileArbitrator is IArbitrator {
    enum Manner {
        Silent,
        Reverts,
        Burns,
        RulesAtOnce,
        Calls
    }

    Manner public manner;
    uint256 public nextId = 1;
    bytes public data;
    bool public called;

    error Hostile();

    function behave(Manner manner_, uint256 nextId_, bytes calldata data_) external {
        (manner, nextId, data) = (manner_, nextId_, data_);
    }

    function createDispute(uint256, bytes calldata) external payable returns (uint256) {
        if (manner == Manner.Reverts) revert Hostile();
        if (manner == Manner.Burns) {
            while (true) data.length;
        }
        if (manner == Manner.RulesAtOnce) IArbitrable(msg.sender).rule(nextId, 2);
        if (manner == Manner.Calls) (called, ) = msg.sender.call(data);
        emit DisputeCreation(nextId, IArbitrable(msg.sender));
        return nextId;
    }

    function rule(IArbitrable target, uint256 disputeID, uint256 ruling) external {
        target.rule(disputeID, ruling);
    }

    function arbitrationCost(bytes calldata) external pure returns (uint256) {
        return 0;
    }

    function disputeStatus(uint256) external pure returns (DisputeStatus) {
        return DisputeStatus.Waiting;
    }

    function currentRuling(uint256) external pure returns (uint256) {
        return 0;
    }
}
