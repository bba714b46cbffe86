// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {LowLevelCall} from "@openzeppelin/contracts/utils/LowLevelCall.sol";

import {Credit, Row} from "./interfaces/Batch.sol";
import {IBatchVerifier} from "./interfaces/IBatchVerifier.sol";
import {IMandateRegistry} from "./interfaces/IMandateRegistry.sol";
import {ISettlement} from "./interfaces/ISettlement.sol";
import {BatchWords} from "./lib/BatchWords.sol";
import {Evaluation} from "./lib/Evaluation.sol";
import {Field} from "./lib/Field.sol";
import {PublicSignals} from "./lib/PublicSignals.sol";
import {Transcript} from "./lib/Transcript.sol";

/// @title BatchSettlement
/// @dev The eight checks of settlement: 1 to 4 (order and processor, widths, the agent's signature, the budget) for each
/// row and 6 (debits are credits) are the registry's and the escrow's, beside the storage that they guard. Here are 5, 7
/// and 8: the challenge, the evaluation, the proof.
contract BatchSettlement is ISettlement {
    /// @inheritdoc ISettlement
    IMandateRegistry public immutable registry;
    /// @inheritdoc ISettlement
    uint256 public batchCount;
    /// @inheritdoc ISettlement
    mapping(uint256 batchId => bytes32) public transcriptOf;
    /// @inheritdoc ISettlement
    mapping(bytes32 circuitId => IBatchVerifier) public verifierOf;

    constructor(IMandateRegistry registry_, IBatchVerifier[] memory verifiers) {
        if (verifiers.length == 0) revert NoVerifiers();
        registry = registry_;
        for (uint256 i = 0; i < verifiers.length; ++i) {
            bytes32 circuitId = verifiers[i].circuitId();
            if (address(verifierOf[circuitId]) != address(0)) revert DuplicateCircuit(circuitId);
            verifierOf[circuitId] = verifiers[i];
            emit VerifierAdded(circuitId, verifiers[i]);
        }
    }

    /// @inheritdoc ISettlement
    function settle(
        bytes32 circuitId,
        Row[] calldata rows,
        Credit[] calldata credits,
        uint256 commitment,
        uint256 evaluation,
        uint256[8] calldata proof
    ) external returns (uint256 batchId) {
        IBatchVerifier verifier = verifierOf[circuitId];
        if (address(verifier) == address(0)) revert UnknownCircuit(circuitId);
        Field.requireElement(commitment);
        Field.requireElement(evaluation);

        (bytes memory rowWords, uint64[] memory spent, address token, uint256 total) = _move(rows, credits);
        bytes memory creditWords = BatchWords.ofCredits(credits);
        bytes32 transcript = _transcript(circuitId, commitment, rowWords, creditWords);
        uint256 challenge = uint256(transcript) % Field.ORDER;
        _requireEvaluation(evaluation, challenge, rowWords, creditWords);
        if (!verifier.verify(proof, PublicSignals.pack(evaluation, commitment, challenge))) {
            revert InvalidProof(circuitId);
        }

        batchId = ++batchCount;
        transcriptOf[batchId] = transcript;
        _emitSettled(batchId, rows, rowWords, spent);
        emit BatchSettled(batchId, msg.sender, token, circuitId, transcript, total, rows.length, credits.length);
    }

    /// @dev Checks 1 to 4 and 6, and what they move.
    function _move(
        Row[] calldata rows,
        Credit[] calldata credits
    ) private returns (bytes memory rowWords, uint64[] memory spent, address token, uint256 total) {
        bytes memory data = BatchWords.encodeSettle(msg.sender, rows, credits);
        if (!LowLevelCall.callNoReturn(address(registry), data)) LowLevelCall.bubbleRevert();
        return abi.decode(LowLevelCall.returnData(), (bytes, uint64[], address, uint256));
    }

    function _emitSettled(uint256 batchId, Row[] calldata rows, bytes memory rowWords, uint64[] memory spent) private {
        for (uint256 i = 0; i < rows.length; ++i) {
            Row calldata row = rows[i];
            emit MandateSettled(row.agent, batchId, BatchWords.seqOf(rowWords, i) + row.count, spent[i], row.head);
        }
    }

    /// @dev Check 5: the challenge binds every value that the evaluation uses.
    function _transcript(
        bytes32 circuitId,
        uint256 commitment,
        bytes memory rowWords,
        bytes memory creditWords
    ) private view returns (bytes32) {
        return Transcript.compute(address(this), circuitId, commitment, keccak256(rowWords), keccak256(creditWords));
    }

    /// @dev Check 7: (T − E)·Den = Num.
    function _requireEvaluation(
        uint256 evaluation,
        uint256 challenge,
        bytes memory rowWords,
        bytes memory creditWords
    ) private pure {
        uint256 e = Evaluation.evaluateRows(rowWords, challenge);
        (uint256 num, uint256 den) = Evaluation.sumCredits(creditWords, challenge);
        if (!Evaluation.agrees(evaluation, e, num, den)) revert EvaluationMismatch(evaluation, challenge);
    }
}
