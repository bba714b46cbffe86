// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Line, Mandate, Receipt} from "../interfaces/Messages.sol";
import {Evaluation} from "../lib/Evaluation.sol";
import {Ledger} from "../lib/Ledger.sol";
import {PublicSignals} from "../lib/PublicSignals.sol";
import {StrictECDSA} from "../lib/StrictECDSA.sol";
import {TypedHashes} from "../lib/TypedHashes.sol";

/// @title The libraries, callable
contract EncodingProbe {
    function hashMandate(Mandate calldata mandate) external pure returns (bytes32) {
        return TypedHashes.hashMandate(mandate);
    }

    function hashPayees(address[] calldata payees) external pure returns (bytes32) {
        return TypedHashes.hashPayees(payees);
    }

    function hashLine(Line calldata line) external pure returns (bytes32) {
        return TypedHashes.hashLine(line);
    }

    function hashPayment(uint64 seq, uint64 spent, uint256 head, bytes32 lineHash) external pure returns (bytes32) {
        return TypedHashes.hashPayment(seq, spent, head, lineHash);
    }

    function hashReceipt(Receipt calldata receipt) external pure returns (bytes32) {
        return TypedHashes.hashReceipt(receipt);
    }

    function hashRevocation(address agent, uint64 afterSeq) external pure returns (bytes32) {
        return TypedHashes.hashRevocation(agent, afterSeq);
    }

    function hashClose(address agent, uint64 seq) external pure returns (bytes32) {
        return TypedHashes.hashClose(agent, seq);
    }

    function requireSigner(address signer, bytes32 digest, bytes calldata signature) external pure {
        StrictECDSA.requireSigner(signer, digest, signature);
    }

    function requireSignerParts(address signer, bytes32 digest, uint8 v, bytes32 r, bytes32 s) external pure {
        StrictECDSA.requireSigner(signer, digest, v, r, s);
    }

    /// @notice {Ledger.genesis} on the chain and at the time of the call.
    function genesis(address registry, address agent) external view returns (uint256) {
        return Ledger.genesis(registry, agent);
    }

    function packRow(uint64 debit, uint32 count, uint64 seq) external pure returns (uint256) {
        return Ledger.packRow(debit, count, seq);
    }

    function packSignals(
        uint256 evaluation,
        uint256 commitment,
        uint256 challenge
    ) external pure returns (uint256[3] memory) {
        return PublicSignals.pack(evaluation, commitment, challenge);
    }

    function evaluateRows(uint256[] calldata rows, uint256 z) external pure returns (uint256) {
        return Evaluation.evaluateRows(abi.encodePacked(rows), z);
    }

    function sumCredits(uint256[] calldata credits, uint256 z) external pure returns (uint256 num, uint256 den) {
        return Evaluation.sumCredits(abi.encodePacked(credits), z);
    }

    function agrees(uint256 evaluation, uint256 e, uint256 num, uint256 den) external pure returns (bool) {
        return Evaluation.agrees(evaluation, e, num, den);
    }
}
