// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBatchVerifier} from "../interfaces/IBatchVerifier.sol";

/// @title A verifier that accepts everything
/// @dev Only for the stateful suite and gas experiments, where thousands of proofs would take days. It makes the other
/// checks of settlement stand alone: whatever holds with it holds with any verifier.
contract StubVerifier is IBatchVerifier {
    bytes32 public immutable circuitId;

    constructor(bytes32 circuitId_) {
        circuitId = circuitId_;
    }

    function isDevelopmentKey() external pure returns (bool) {
        return true;
    }

    function verify(uint256[8] calldata, uint256[3] calldata) external pure returns (bool) {
        return true;
    }
}
