// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title A Groth16 verifier of one size of the Inclusion circuit
/// @notice Generated from a proving key; has no state.
interface IInclusionVerifier {
    /// @notice A development key, whose trapdoor is public, stands on a chain that is not local.
    error DevelopmentKey(uint256 chainId);

    /// @notice keccak256 of the verification key's words, as docs/spec/encoding.md lists them.
    function circuitId() external view returns (bytes32);

    /// @notice Whether the key comes from the development setup. Such a verifier works on local chains only.
    function isDevelopmentKey() external view returns (bool);

    /// @notice Whether `proof` proves `signals`.
    /// @param proof a (x, y), b (x1, x0, y1, y0), c (x, y), as the pairing precompile takes them.
    /// @param signals base, head, line, index; one that is not below the field order gives false.
    function verify(uint256[8] calldata proof, uint256[4] calldata signals) external view returns (bool);
}
