// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title Signatures of session keys
/// @notice One signature per key and message is accepted: 65 bytes, s in the lower half order, v 27 or 28. Code at the
/// signer's address never matters, so EIP-7702 cannot change a signature's validity after a receipt was given for it.
library StrictECDSA {
    /// @notice `recovered` signed, not `signer`; or, with the zero address, nobody did: `reason` says why.
    error WrongSigner(address signer, address recovered, ECDSA.RecoverError reason);

    function requireSigner(address signer, bytes32 digest, bytes calldata signature) internal pure {
        (address recovered, ECDSA.RecoverError reason, ) = ECDSA.tryRecoverCalldata(digest, signature);
        if (recovered == address(0) || recovered != signer) revert WrongSigner(signer, recovered, reason);
    }

    function requireSigner(address signer, bytes32 digest, uint8 v, bytes32 r, bytes32 s) internal pure {
        (address recovered, ECDSA.RecoverError reason, ) = ECDSA.tryRecover(digest, v, r, s);
        if (recovered == address(0) || recovered != signer) revert WrongSigner(signer, recovered, reason);
    }
}
