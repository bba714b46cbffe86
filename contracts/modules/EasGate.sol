// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {EasAttestation, IEAS} from "../interfaces/IEAS.sol";
import {IIdentityGate} from "../interfaces/IIdentityGate.sol";

/// @title EasGate
/// @notice Who holds an attestation of one schema, by one of some attesters, in an Ethereum Attestation Service may do
/// business: as an owner and as a payee. Anyone points the gate to an account's attestation once; from then on each
/// question reads it where it is, so its expiry and its revocation count at once.
contract EasGate is IIdentityGate {
    uint256 public constant MAX_ATTESTERS = 16;

    IEAS public immutable eas;
    bytes32 public immutable schema;

    address[] private _attesters;
    mapping(address account => bool) public isAttester;
    /// @notice The attestation of an account that is read, 0 if nobody pointed to one.
    mapping(address account => bytes32) public uidOf;

    event Pointed(address indexed account, bytes32 indexed uid, address indexed attester);

    error AttesterCountOutOfRange(uint256 count, uint256 limit);
    error InvalidAttester(address attester);
    error NotValid(bytes32 uid);
    /// @notice The attestation that is read counts, and as long as this one.
    error NoBetter(bytes32 uid, bytes32 current);

    /// @param attesters_ whose attestations count.
    constructor(IEAS eas_, bytes32 schema_, address[] memory attesters_) {
        if (attesters_.length == 0 || attesters_.length > MAX_ATTESTERS) {
            revert AttesterCountOutOfRange(attesters_.length, MAX_ATTESTERS);
        }
        for (uint256 i = 0; i < attesters_.length; ++i) {
            address attester = attesters_[i];
            if (attester == address(0) || isAttester[attester]) revert InvalidAttester(attester);
            isAttester[attester] = true;
        }
        (eas, schema, _attesters) = (eas_, schema_, attesters_);
    }

    /// @notice Points to the attestation of its recipient. Anyone may call it; of two that count, the longer one stays.
    function point(bytes32 uid) external {
        EasAttestation memory attestation = eas.getAttestation(uid);
        address account = attestation.recipient;
        uint256 end = _endOf(attestation, uid, account);
        if (end <= block.timestamp) revert NotValid(uid);
        bytes32 current = uidOf[account];
        if (current != 0 && end <= _endOf(eas.getAttestation(current), current, account)) {
            revert NoBetter(uid, current);
        }

        uidOf[account] = uid;
        emit Pointed(account, uid, attestation.attester);
    }

    /// @inheritdoc IIdentityGate
    function mayOpen(address owner, address, address, uint64) external view returns (bool) {
        return isAttested(owner);
    }

    /// @inheritdoc IIdentityGate
    function mayBePaid(address payee, address) external view returns (bool) {
        return isAttested(payee);
    }

    function attesters() external view returns (address[] memory) {
        return _attesters;
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IIdentityGate).interfaceId || interfaceId == type(IERC165).interfaceId;
    }

    /// @notice Whether the attestation of an account counts now.
    function isAttested(address account) public view returns (bool) {
        bytes32 uid = uidOf[account];
        return uid != 0 && _endOf(eas.getAttestation(uid), uid, account) > block.timestamp;
    }

    /// @return the first second in which the attestation counts no more; 0 if it never does.
    function _endOf(EasAttestation memory attestation, bytes32 uid, address account) private view returns (uint256) {
        bool exists = uid != 0 && attestation.uid == uid && attestation.schema == schema;
        bool counts = exists && attestation.recipient == account && isAttester[attestation.attester];
        if (!counts || attestation.revocationTime != 0) return 0;
        return attestation.expirationTime == 0 ? type(uint256).max : attestation.expirationTime;
    }
}
