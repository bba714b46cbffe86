// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice An attestation as the Ethereum Attestation Service keeps it. Times are Unix seconds.
struct EasAttestation {
    /// 0 if there is none.
    bytes32 uid;
    bytes32 schema;
    uint64 time;
    /// From this second on it counts no more; 0 means never.
    uint64 expirationTime;
    /// When it was revoked, or 0.
    uint64 revocationTime;
    bytes32 refUID;
    address recipient;
    address attester;
    bool revocable;
    bytes data;
}

/// @title The part of an Ethereum Attestation Service that a gate reads
interface IEAS {
    /// @notice The attestation with this id; zeros if there is none.
    function getAttestation(bytes32 uid) external view returns (EasAttestation memory);
}
