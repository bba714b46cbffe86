// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {IIdentityGate} from "../interfaces/IIdentityGate.sol";

/// @title OpenGate
/// @notice Everyone may do business.
contract OpenGate is IIdentityGate {
    /// @inheritdoc IIdentityGate
    function mayOpen(address, address, address, uint64) external pure returns (bool) {
        return true;
    }

    /// @inheritdoc IIdentityGate
    function mayBePaid(address, address) external pure returns (bool) {
        return true;
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IIdentityGate).interfaceId || interfaceId == type(IERC165).interfaceId;
    }
}
