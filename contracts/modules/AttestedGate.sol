// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {IIdentityGate} from "../interfaces/IIdentityGate.sol";
import {StrictECDSA} from "../lib/StrictECDSA.sol";

/// @notice An attester's signed word about an account.
struct Attestation {
    address subject;
    /// Of two words about one account the later one counts.
    uint64 issuedAt;
    /// The last second in which it counts.
    uint64 expiresAt;
}

/// @title AttestedGate
/// @notice Who is known to one of its attesters may do business: as an owner and as a payee. An attester signs an
/// {Attestation} (EIP-712, domain {name "AttestedGate", version "1", chainId, verifyingContract}), anyone brings it here,
/// and it counts until it expires or its attester revokes it. The attesters are fixed at deployment; they are keys, so
/// that code at their addresses changes nothing. Times are Unix seconds.
contract AttestedGate is IIdentityGate, EIP712 {
    /// @dev The last that an attester said of an account: one slot.
    struct Word {
        uint64 issuedAt;
        uint64 expiresAt;
    }

    bytes32 private constant ATTESTATION_TYPEHASH = keccak256(
        "Attestation(address subject,uint64 issuedAt,uint64 expiresAt)"
    );
    /// @dev As many as {IIdentityGate} can ask with its gas, with room to spare.
    uint256 public constant MAX_ATTESTERS = 16;

    address[] private _attesters;
    mapping(address account => bool) public isAttester;
    /// @notice The last word of an attester about an account; `expiresAt` is 0 once it is revoked.
    mapping(address attester => mapping(address subject => Word)) public wordOf;

    event Attested(address indexed subject, address indexed attester, uint64 issuedAt, uint64 expiresAt);
    event Revoked(address indexed subject, address indexed attester, uint256 time);

    error AttesterCountOutOfRange(uint256 count, uint256 limit);
    error InvalidAttester(address attester);
    error OnlyAttester(address account);
    /// @notice Dated ahead, so that a revocation could not come after it.
    error IssuedAhead(uint256 issuedAt, uint256 time);
    /// @notice The attester said something about this account then, or later.
    error NotTheLatest(address subject, uint256 issuedAt, uint256 latest);
    error AttestationExpired(uint256 expiresAt, uint256 time);

    constructor(address[] memory attesters_) EIP712("AttestedGate", "1") {
        if (attesters_.length == 0 || attesters_.length > MAX_ATTESTERS) {
            revert AttesterCountOutOfRange(attesters_.length, MAX_ATTESTERS);
        }
        for (uint256 i = 0; i < attesters_.length; ++i) {
            address attester = attesters_[i];
            if (attester == address(0) || isAttester[attester]) revert InvalidAttester(attester);
            isAttester[attester] = true;
        }
        _attesters = attesters_;
    }

    /// @notice Brings an attestation. Anyone may call it.
    /// @param signature the attester's: 65 bytes, s in the lower half order, v 27 or 28.
    function attest(Attestation calldata attestation, address attester, bytes calldata signature) external {
        if (!isAttester[attester]) revert OnlyAttester(attester);
        StrictECDSA.requireSigner(attester, hashAttestation(attestation), signature);
        if (attestation.issuedAt > block.timestamp) revert IssuedAhead(attestation.issuedAt, block.timestamp);
        if (attestation.expiresAt < block.timestamp) revert AttestationExpired(attestation.expiresAt, block.timestamp);
        Word storage word = wordOf[attester][attestation.subject];
        if (attestation.issuedAt <= word.issuedAt) {
            revert NotTheLatest(attestation.subject, attestation.issuedAt, word.issuedAt);
        }

        (word.issuedAt, word.expiresAt) = (attestation.issuedAt, attestation.expiresAt);
        emit Attested(attestation.subject, attester, attestation.issuedAt, attestation.expiresAt);
    }

    /// @notice Takes back everything that the calling attester has signed about an account until this second, brought here
    /// or not.
    function revoke(address subject) external {
        if (!isAttester[msg.sender]) revert OnlyAttester(msg.sender);
        wordOf[msg.sender][subject] = Word(uint64(block.timestamp), 0);
        emit Revoked(subject, msg.sender, block.timestamp);
    }

    /// @inheritdoc IIdentityGate
    function mayOpen(address owner, address, address, uint64) external view returns (bool) {
        return isAttested(owner);
    }

    /// @inheritdoc IIdentityGate
    function mayBePaid(address payee, address) external view returns (bool) {
        return isAttested(payee);
    }

    /// @notice All attesters, as they were named at deployment.
    function attesters() external view returns (address[] memory) {
        return _attesters;
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IIdentityGate).interfaceId || interfaceId == type(IERC165).interfaceId;
    }

    /// @notice The EIP-712 digest that an attester signs.
    function hashAttestation(Attestation calldata attestation) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(ATTESTATION_TYPEHASH, attestation)));
    }

    /// @notice Whether an attester stands behind an account now.
    function isAttested(address account) public view returns (bool) {
        for (uint256 i = 0; i < _attesters.length; ++i) {
            if (wordOf[_attesters[i]][account].expiresAt >= block.timestamp) return true;
        }
        return false;
    }
}
