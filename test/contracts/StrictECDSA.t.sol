// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {StrictECDSA} from "../../contracts/lib/StrictECDSA.sol";
import {SignatureTest} from "./SignatureTest.sol";

/// @title One signature for each key and message, in one form
contract StrictECDSATest is SignatureTest {
    function testFuzz_takes_the_one_form_of_65_bytes(uint256 key, bytes32 message, uint8 form, uint256 noise) external {
        bytes32 other = message ^ bytes32(1 << (noise % 256));
        bytes memory signature = _signature(_formOf(form), key, message, other, noise);
        bytes32 digest = _digest(block.chainid, address(_registry), message);
        _call(address(this), abi.encodeCall(this.requireBytes, (_addressOf(key), digest, signature)), _formOf(form));
    }

    function testFuzz_takes_v_r_s_as_it_takes_65_bytes(
        address signer,
        bytes32 digest,
        bytes32 r,
        bytes32 s,
        uint8 v
    ) external {
        bytes memory bytes65 = abi.encodeCall(this.requireBytes, (signer, digest, abi.encodePacked(r, s, v)));
        bytes memory words = abi.encodeCall(this.requireWords, (signer, digest, v, r, s));
        _requireEqual(bytes65, words);
    }

    function testFuzz_takes_a_key_s_v_r_s_as_it_takes_65_bytes(
        uint256 key,
        bytes32 digest,
        uint8 form,
        uint8 v
    ) external {
        (uint8 right, bytes32 r, bytes32 s) = VM.sign(_keyOf(key), digest);
        if (form % 2 == 0) v = right;
        if (form % 3 == 0) s = bytes32(KEY_ORDER - uint256(s));
        bytes memory bytes65 = abi.encodeCall(this.requireBytes, (_addressOf(key), digest, abi.encodePacked(r, s, v)));
        bytes memory words = abi.encodeCall(this.requireWords, (_addressOf(key), digest, v, r, s));
        bool accepted = _requireEqual(bytes65, words);
        bool expected = v == right && form % 3 != 0;
        if (accepted != expected) revert Accepted(accepted, expected, Form.Right);
    }

    function testFuzz_takes_nothing_for_the_zero_address(bytes32 digest, bytes memory signature) external {
        _call(address(this), abi.encodeCall(this.requireBytes, (address(0), digest, signature)), Form.OtherKey);
    }

    function requireBytes(address signer, bytes32 digest, bytes calldata signature) external pure {
        StrictECDSA.requireSigner(signer, digest, signature);
    }

    function requireWords(address signer, bytes32 digest, uint8 v, bytes32 r, bytes32 s) external pure {
        StrictECDSA.requireSigner(signer, digest, v, r, s);
    }

    function _requireEqual(bytes memory first, bytes memory second) private returns (bool accepted) {
        bytes memory answer;
        bool also;
        bytes memory again;
        (accepted, answer) = address(this).call(first);
        (also, again) = address(this).call(second);
        if (accepted != also || keccak256(answer) != keccak256(again)) revert Accepted(accepted, also, Form.Right);
    }
}
