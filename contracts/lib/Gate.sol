// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IIdentityGate} from "../interfaces/IIdentityGate.sol";

/// @title Asking an identity gate that may be hostile
/// @notice No answer, a revert, all gas burned or anything but the word 1 is a no. It cannot write, and a long answer is
/// not copied.
library Gate {
    uint256 internal constant GAS = 200_000;

    function mayOpen(
        IIdentityGate gate,
        address owner,
        address agent,
        address token,
        uint64 budget
    ) internal view returns (bool) {
        return _ask(gate, abi.encodeCall(IIdentityGate.mayOpen, (owner, agent, token, budget)));
    }

    function mayBePaid(IIdentityGate gate, address payee, address token) internal view returns (bool) {
        return _ask(gate, abi.encodeCall(IIdentityGate.mayBePaid, (payee, token)));
    }

    function _ask(IIdentityGate gate, bytes memory data) private view returns (bool yes) {
        uint256 gasLimit = GAS;
        assembly ("memory-safe") {
            mstore(0x00, 0)
            let answered := staticcall(gasLimit, gate, add(data, 0x20), mload(data), 0x00, 0x20)
            yes := and(and(answered, gt(returndatasize(), 31)), eq(mload(0x00), 1))
        }
    }
}
