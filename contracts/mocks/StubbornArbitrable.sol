// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IArbitrable} from "../interfaces/IArbitrable.sol";
import {IArbitrator} from "../interfaces/IArbitrator.sol";

/// @title A contract that takes no ruling until it is told to
contract StubbornArbitrable is IArbitrable {
    bool public willing;
    bool public burns;
    uint256 public ruled;

    error Unwilling();

    function behave(bool willing_, bool burns_) external {
        (willing, burns) = (willing_, burns_);
    }

    function ask(IArbitrator arbitrator, uint256 choices, bytes calldata extraData) external payable returns (uint256) {
        return arbitrator.createDispute{value: msg.value}(choices, extraData);
    }

    function rule(uint256, uint256 ruling) external {
        while (burns) ruled = 0;
        if (!willing) revert Unwilling();
        ruled = ruling;
    }
}
