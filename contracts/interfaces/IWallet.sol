// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @title Who signs for an owner that is a contract
/// @notice The registry asks {IERC1271.isValidSignature} when a mandate is opened, revoked by signature or closed together,
/// by static call, and takes the magic word alone for a yes. Later answers change nothing for a mandate that is open.
///
/// A wallet must not take a signature that its key gave for another account: what is signed binds the wallet's own
/// address. It takes one signature for a message and not its mirror image (s in the lower half order).
interface IWallet is IERC1271, IERC165 {
    event SignerChanged(address indexed previous, address indexed signer);

    /// @notice Whose signature counts for the wallet now; the zero address if nobody's does.
    function signer() external view returns (address);
}
