// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IInclusionVerifier} from "../interfaces/IInclusionVerifier.sol";

/// @title A verifier that believes its caller
/// @dev Only for the stateful suite, as {StubVerifier}. A proof whose first word is 1 proves anything, and no other does: the
/// suite, which knows every ledger, says 1 where a prover could.
contract StubInclusionVerifier is IInclusionVerifier {
    bytes32 public immutable circuitId;

    constructor(bytes32 circuitId_) {
        circuitId = circuitId_;
    }

    function isDevelopmentKey() external pure returns (bool) {
        return true;
    }

    function verify(uint256[8] calldata proof, uint256[4] calldata) external pure returns (bool) {
        return proof[0] == 1;
    }
}
