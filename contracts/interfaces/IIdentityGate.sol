// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @title Who may do new business
/// @notice Asked at opening, for the owner and for every payee that the mandate lists, and by processors before they take a
/// payment for a payee or pay out for it. It can refuse new business only: nothing that settles, claims, returns or
/// withdraws money asks it. It is asked with 200,000 gas; a revert, silence or anything but true is a no.
interface IIdentityGate is IERC165 {
    /// @notice Whether `owner` may open a mandate of `budget` units of `token` for `agent`.
    function mayOpen(address owner, address agent, address token, uint64 budget) external view returns (bool);

    /// @notice Whether new payments of `token` to `payee` may be taken.
    function mayBePaid(address payee, address token) external view returns (bool);
}
