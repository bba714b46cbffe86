// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {AttestedGate, Attestation} from "../../contracts/modules/AttestedGate.sol";

/// @notice The cheat codes that this test needs.
interface Vm {
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function warp(uint256 time) external;
    function chainId(uint256 id) external;
    function prank(address caller) external;
}

/// @title Whoever is attested is so by exactly what an attester signed last, in its time, on its chain
contract AttestedGateTest {
    Vm private constant VM = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 private constant KEY_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
    uint256 private constant HOME = 31_337;

    error Taken(bool taken, bool expected);
    error Admitted(bool admitted, bool expected);

    function testFuzz_takes_what_is_signed_in_its_time(
        uint256 key,
        Attestation calldata word,
        uint64 time,
        uint64 later
    ) external {
        (AttestedGate gate, address attester) = _gate(key);
        uint256 present = uint256(time) + 1;
        VM.warp(present);
        bool expected = word.issuedAt > 0 && word.issuedAt <= present && word.expiresAt >= present;
        _attest(gate, attester, word, _sign(gate, key, word), expected);
        _expectAdmitted(gate, word.subject, expected);
        _attest(gate, attester, word, _sign(gate, key, word), false);
        VM.warp(uint256(later) + 1);
        _expectAdmitted(gate, word.subject, expected && later < word.expiresAt);
    }

    function testFuzz_takes_nothing_that_differs_in_a_bit(
        uint256 key,
        address subject,
        uint64 time,
        uint8 member,
        uint8 bit
    ) external {
        (AttestedGate gate, address attester) = _gate(key);
        time = uint64((time % 1e12) + 1);
        VM.warp(uint256(time) * 2);
        Attestation memory word = Attestation(subject, time, type(uint64).max);
        bytes memory signature = _sign(gate, key, word);
        member %= 4;
        if (member == 0) word.subject = address(uint160(subject) ^ uint160(1 << (bit % 160)));
        if (member == 1) word.issuedAt ^= uint64(1 << (bit % 40));
        if (member == 2) word.expiresAt ^= uint64(1 << (bit % 8));
        if (member == 3) signature[bit % 65] ^= bytes1(uint8(1 << (bit % 8)));
        _attest(gate, attester, word, signature, false);
        _expectAdmitted(gate, subject, false);
        _expectAdmitted(gate, word.subject, false);
    }

    function testFuzz_takes_nothing_that_is_signed_for_elsewhere(uint256 key, address subject, uint32 chain) external {
        (AttestedGate gate, address attester) = _gate(key);
        (AttestedGate twin, ) = _gate(key);
        VM.warp(1_000);
        Attestation memory word = Attestation(subject, 500, 2_000);
        _attest(gate, attester, word, _sign(twin, key, word), false);
        bytes memory signature = _sign(gate, key, word);
        uint256 elsewhere = uint256(chain) + HOME + 1;
        VM.chainId(elsewhere);
        _attest(gate, attester, word, signature, false);
        VM.chainId(HOME);
        _attest(gate, attester, word, signature, true);
    }

    function testFuzz_believes_the_last_word(uint256 key, address subject, uint16[6] calldata steps) external {
        (AttestedGate gate, address attester) = _gate(key);
        uint256 time = 100_000;
        uint64 latest = 0;
        uint64 until = 0;
        for (uint256 i = 0; i < steps.length; ++i) {
            time += (steps[i] >> 4) % 300;
            VM.warp(time);
            if (steps[i] % 4 == 0) {
                VM.prank(attester);
                gate.revoke(subject);
                (latest, until) = (uint64(time), 0);
            } else {
                uint64 issuedAt = uint64(time - ((steps[i] >> 2) % 200));
                uint64 expiresAt = uint64(time + (steps[i] >> 8));
                Attestation memory word = Attestation(subject, issuedAt, expiresAt);
                bool expected = issuedAt > latest;
                _attest(gate, attester, word, _sign(gate, key, word), expected);
                if (expected) (latest, until) = (issuedAt, expiresAt);
            }
            _expectAdmitted(gate, subject, until >= time);
        }
    }

    function _gate(uint256 key) private returns (AttestedGate, address) {
        address attester = VM.addr((key % (KEY_ORDER - 1)) + 1);
        address[] memory attesters = new address[](1);
        attesters[0] = attester;
        return (new AttestedGate(attesters), attester);
    }

    function _attest(
        AttestedGate gate,
        address attester,
        Attestation memory word,
        bytes memory signature,
        bool expected
    ) private {
        bool taken = true;
        try gate.attest(word, attester, signature) {} catch {
            taken = false;
        }
        if (taken != expected) revert Taken(taken, expected);
    }

    function _expectAdmitted(AttestedGate gate, address account, bool expected) private view {
        bool admitted = gate.mayOpen(account, address(1), address(2), 3) && gate.mayBePaid(account, address(2));
        if (admitted != expected) revert Admitted(admitted, expected);
    }

    function _sign(AttestedGate gate, uint256 key, Attestation memory word) private view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = VM.sign((key % (KEY_ORDER - 1)) + 1, gate.hashAttestation(word));
        return abi.encodePacked(r, s, v);
    }
}
