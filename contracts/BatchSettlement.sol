// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Credit, Row} from "./interfaces/Batch.sol";
import {IBatchVerifier} from "./interfaces/IBatchVerifier.sol";
import {IMandateRegistry} from "./interfaces/IMandateRegistry.sol";
import {ISettlement} from "./interfaces/ISettlement.sol";
import {Evaluation} from "./lib/Evaluation.sol";
import {Field} from "./lib/Field.sol";
import {Ledger} from "./lib/Ledger.sol";
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

        (IMandateRegistry.Position[] memory starts, address token, uint256 total) = registry.settle(
            msg.sender,
            rows,
            credits
        );
        uint256[] memory rowWords = _rowWords(rows, starts);
        uint256[] memory creditWords = _creditWords(credits);
        bytes32 transcript = _transcript(circuitId, commitment, rowWords, creditWords);
        uint256 challenge = uint256(transcript) % Field.ORDER;
        _requireEvaluation(evaluation, challenge, rowWords, creditWords);
        if (!verifier.verify(proof, PublicSignals.pack(evaluation, commitment, challenge))) {
            revert InvalidProof(circuitId);
        }

        batchId = ++batchCount;
        transcriptOf[batchId] = transcript;
        _emitSettled(batchId, rows, starts);
        emit BatchSettled(batchId, msg.sender, token, circuitId, transcript, total, rows.length, credits.length);
    }

    /// @dev Check 5: the challenge binds every value that the evaluation uses.
    function _transcript(
        bytes32 circuitId,
        uint256 commitment,
        uint256[] memory rowWords,
        uint256[] memory creditWords
    ) private view returns (bytes32) {
        bytes32 rowsHash = keccak256(abi.encodePacked(rowWords));
        bytes32 creditsHash = keccak256(abi.encodePacked(creditWords));
        return Transcript.compute(address(this), circuitId, commitment, rowsHash, creditsHash);
    }

    function _emitSettled(uint256 batchId, Row[] calldata rows, IMandateRegistry.Position[] memory starts) private {
        for (uint256 i = 0; i < rows.length; ++i) {
            Row calldata row = rows[i];
            IMandateRegistry.Position memory start = starts[i];
            emit MandateSettled(row.agent, batchId, start.seq + row.count, start.spent + row.debit, row.head);
        }
    }

    /// @dev Check 7: (T − E)·Den = Num.
    function _requireEvaluation(
        uint256 evaluation,
        uint256 challenge,
        uint256[] memory rowWords,
        uint256[] memory creditWords
    ) private pure {
        uint256 e = Evaluation.evaluateRows(rowWords, challenge);
        (uint256 num, uint256 den) = Evaluation.sumCredits(creditWords, challenge);
        if (!Evaluation.agrees(evaluation, e, num, den)) revert EvaluationMismatch(evaluation, challenge);
    }

    function _rowWords(
        Row[] calldata rows,
        IMandateRegistry.Position[] memory starts
    ) private pure returns (uint256[] memory words) {
        words = new uint256[](rows.length * Evaluation.ROW_WORDS);
        for (uint256 i = 0; i < rows.length; ++i) {
            Row calldata row = rows[i];
            IMandateRegistry.Position memory start = starts[i];
            uint256 first = i * Evaluation.ROW_WORDS;
            words[first] = uint160(row.agent);
            words[first + 1] = start.seq;
            words[first + 2] = start.base;
            words[first + 3] = row.head;
            words[first + 4] = row.newBase;
            words[first + 5] = start.policyRoot;
            words[first + 6] = Ledger.packRow(row.debit, row.count, start.seq);
        }
    }

    function _creditWords(Credit[] calldata credits) private pure returns (uint256[] memory words) {
        words = new uint256[](credits.length * Evaluation.CREDIT_WORDS);
        for (uint256 i = 0; i < credits.length; ++i) {
            uint256 first = i * Evaluation.CREDIT_WORDS;
            words[first] = uint160(credits[i].payee);
            words[first + 1] = credits[i].amount;
        }
    }
}
