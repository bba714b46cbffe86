// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title Many views of one block in one call
/// @dev Only for the stateful suite, which reads everything after every step.
contract Reader {
    struct View {
        address target;
        bytes data;
    }

    error ViewFailed(uint256 index);

    function read(View[] calldata views) external view returns (bytes[] memory answers) {
        answers = new bytes[](views.length);
        for (uint256 i = 0; i < views.length; ++i) {
            bool success;
            (success, answers[i]) = views[i].target.staticcall(views[i].data);
            if (!success) revert ViewFailed(i);
        }
    }
}
