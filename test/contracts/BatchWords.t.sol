// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Credit, Row} from "../../contracts/interfaces/Batch.sol";
import {BatchWords} from "../../contracts/lib/BatchWords.sol";
import {PlainBatchWords} from "../../contracts/mocks/PlainBatchWords.sol";

/// @title The assembly of {BatchWords} makes the words that the plain version does, for any rows and credits
contract BatchWordsTest {
    error Differs(bytes assembly_, bytes plain);
    error SeqDiffers(uint64 found, uint64 written);

    function testFuzz_encodes_the_call_as_the_plain_version(
        address processor,
        Row[] calldata rows,
        Credit[] calldata credits
    ) external pure {
        bytes memory plain = PlainBatchWords.encodeSettle(processor, rows, credits);
        _requireEqual(BatchWords.encodeSettle(processor, rows, credits), plain);
    }

    function testFuzz_copies_credits_as_the_plain_version(Credit[] calldata credits) external pure {
        _requireEqual(BatchWords.ofCredits(credits), PlainBatchWords.ofCredits(credits));
    }

    function testFuzz_writes_rows_as_the_plain_version(Row[] calldata rows, uint256 noise) external pure {
        bytes memory words = BatchWords.allocate(rows.length);
        bytes memory plain;
        for (uint256 i = 0; i < rows.length; ++i) {
            (uint64 seq, uint256 base, uint256 policyRoot) = _stored(noise, i);
            BatchWords.write(words, i, rows[i], seq, base, policyRoot);
            plain = bytes.concat(plain, PlainBatchWords.ofRow(rows[i], seq, base, policyRoot));
        }
        _requireEqual(words, plain);
        for (uint256 i = 0; i < rows.length; ++i) {
            (uint64 seq, , ) = _stored(noise, i);
            if (BatchWords.seqOf(words, i) != seq) revert SeqDiffers(BatchWords.seqOf(words, i), seq);
        }
    }

    /// @dev What a mandate might have stored.
    function _stored(uint256 noise, uint256 i) private pure returns (uint64 seq, uint256 base, uint256 policyRoot) {
        base = uint256(keccak256(abi.encode(noise, i)));
        policyRoot = uint256(keccak256(abi.encode(base)));
        seq = uint64(policyRoot >> (noise % 256));
    }

    function _requireEqual(bytes memory assembly_, bytes memory plain) private pure {
        if (keccak256(assembly_) != keccak256(plain)) revert Differs(assembly_, plain);
    }
}
