// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Evaluation} from "../../contracts/lib/Evaluation.sol";
import {PlainEvaluation} from "../../contracts/mocks/PlainEvaluation.sol";

/// @title The assembly of {Evaluation} computes what the plain version does, for any rows, credits and challenge
contract EvaluationTest {
    error Differs(uint256 assembly_, uint256 plain);

    function testFuzz_evaluates_rows_as_the_plain_version(uint256[] memory words, uint256 z) external pure {
        uint256[] memory rows = _whole(words, Evaluation.ROW_WORDS);
        _requireEqual(Evaluation.evaluateRows(abi.encodePacked(rows), z), PlainEvaluation.evaluateRows(rows, z));
    }

    function testFuzz_sums_credits_as_the_plain_version(uint256[] memory words, uint256 z) external pure {
        uint256[] memory credits = _whole(words, Evaluation.CREDIT_WORDS);
        (uint256 num, uint256 den) = Evaluation.sumCredits(abi.encodePacked(credits), z);
        (uint256 plainNum, uint256 plainDen) = PlainEvaluation.sumCredits(credits, z);
        _requireEqual(num, plainNum);
        _requireEqual(den, plainDen);
    }

    function _whole(uint256[] memory words, uint256 size) private pure returns (uint256[] memory whole) {
        whole = new uint256[](words.length - (words.length % size));
        for (uint256 i = 0; i < whole.length; ++i) {
            whole[i] = words[i];
        }
    }

    function _requireEqual(uint256 assembly_, uint256 plain) private pure {
        if (assembly_ != plain) revert Differs(assembly_, plain);
    }
}
