// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {EasAttestation, IEAS} from "../interfaces/IEAS.sol";

/// @title The core of an Ethereum Attestation Service: what it keeps of an attestation, and its revocation
contract TinyEas is IEAS {
    mapping(bytes32 uid => EasAttestation) private _attestations;
    uint256 private _count;

    error InvalidExpirationTime();
    error AccessDenied();
    error AlreadyRevoked();

    event Attested(address indexed recipient, address indexed attester, bytes32 uid, bytes32 indexed schema);

    function attest(bytes32 schema, address recipient, uint64 expirationTime, bytes calldata data) external {
        if (expirationTime != 0 && expirationTime <= block.timestamp) revert InvalidExpirationTime();
        bytes32 uid = keccak256(abi.encode(schema, recipient, msg.sender, ++_count));
        _attestations[uid] = EasAttestation({
            uid: uid,
            schema: schema,
            time: uint64(block.timestamp),
            expirationTime: expirationTime,
            revocationTime: 0,
            refUID: 0,
            recipient: recipient,
            attester: msg.sender,
            revocable: true,
            data: data
        });
        emit Attested(recipient, msg.sender, uid, schema);
    }

    function revoke(bytes32 uid) external {
        EasAttestation storage attestation = _attestations[uid];
        if (attestation.attester != msg.sender) revert AccessDenied();
        if (attestation.revocationTime != 0) revert AlreadyRevoked();
        attestation.revocationTime = uint64(block.timestamp);
    }

    function getAttestation(bytes32 uid) external view returns (EasAttestation memory) {
        return _attestations[uid];
    }
}
