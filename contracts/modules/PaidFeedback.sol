// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {IMandateRegistry} from "../interfaces/IMandateRegistry.sol";
import {IProcessorRegistry} from "../interfaces/IProcessorRegistry.sol";
import {IReputation} from "../interfaces/IReputation.sol";
import {ReceiptedPayment} from "../interfaces/ReceiptedPayment.sol";
import {ReceiptedPayments} from "../lib/ReceiptedPayments.sol";

/// @title PaidFeedback
/// @notice Feedback that costs a payment. Whoever praises itself pays itself through a bonded processor, so a summary is
/// worth what its clients are: ask for the owners that you know. It keeps no money and calls nothing that moves any.
contract PaidFeedback is IReputation {
    struct Feedback {
        int128 value;
        bool revoked;
        string tag1;
        string tag2;
    }

    int128 private constant MAX_VALUE = 100;
    uint256 private constant MAX_TAG = 32;
    uint256 private constant MAX_URI = 256;

    IMandateRegistry public immutable registry;
    IProcessorRegistry public immutable processors;

    /// @inheritdoc IReputation
    mapping(address agent => mapping(uint64 seq => bool)) public isRated;

    mapping(uint256 agentId => address[]) private _clients;
    mapping(uint256 agentId => mapping(address client => Feedback[])) private _feedback;

    constructor(IMandateRegistry registry_) {
        registry = registry_;
        processors = registry_.processors();
    }

    /// @inheritdoc IReputation
    function rate(
        ReceiptedPayment calldata payment,
        int128 value,
        string calldata tag1,
        string calldata tag2,
        string calldata feedbackURI,
        bytes32 feedbackHash
    ) public virtual returns (uint64 feedbackIndex) {
        if (value < 0 || value > MAX_VALUE) revert ValueOutOfRange(value, 0, MAX_VALUE);
        _requireText(tag1, MAX_TAG);
        _requireText(tag2, MAX_TAG);
        _requireText(feedbackURI, MAX_URI);
        address client = _requireRater(payment);
        if (isRated[payment.agent][payment.seq]) revert RatedAlready(payment.agent, payment.seq);

        isRated[payment.agent][payment.seq] = true;
        uint256 agentId = uint160(payment.line.payee);
        Feedback[] storage said = _feedback[agentId][client];
        if (said.length == 0) _clients[agentId].push(client);
        said.push(Feedback(value, false, tag1, tag2));
        feedbackIndex = uint64(said.length);
        emit NewFeedback(agentId, client, feedbackIndex, value, 0, tag1, tag1, tag2, "", feedbackURI, feedbackHash);
    }

    /// @inheritdoc IReputation
    function revokeFeedback(uint256 agentId, uint64 feedbackIndex) external {
        Feedback storage feedback = _feedbackOf(agentId, msg.sender, feedbackIndex);
        if (feedback.revoked) revert NoFeedback(agentId, msg.sender, feedbackIndex);
        feedback.revoked = true;
        emit FeedbackRevoked(agentId, msg.sender, feedbackIndex);
    }

    /// @inheritdoc IReputation
    function readFeedback(
        uint256 agentId,
        address clientAddress,
        uint64 feedbackIndex
    )
        external
        view
        returns (int128 value, uint8 valueDecimals, string memory tag1, string memory tag2, bool isRevoked)
    {
        Feedback storage feedback = _feedbackOf(agentId, clientAddress, feedbackIndex);
        return (feedback.value, 0, feedback.tag1, feedback.tag2, feedback.revoked);
    }

    /// @inheritdoc IReputation
    function getClients(uint256 agentId) external view returns (address[] memory) {
        return _clients[agentId];
    }

    /// @inheritdoc IReputation
    function getLastIndex(uint256 agentId, address clientAddress) external view returns (uint64) {
        return uint64(_feedback[agentId][clientAddress].length);
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IReputation).interfaceId || interfaceId == type(IERC165).interfaceId;
    }

    /// @inheritdoc IReputation
    function getSummary(
        uint256 agentId,
        address[] calldata clientAddresses,
        string calldata tag1,
        string calldata tag2
    ) public view virtual returns (uint64 count, int128 summaryValue, uint8 summaryValueDecimals) {
        address[] memory clients = clientAddresses;
        if (clients.length == 0) clients = _clients[agentId];
        int128 sum = 0;
        for (uint256 i = 0; i < clients.length; ++i) {
            Feedback[] storage said = _feedback[agentId][clients[i]];
            for (uint256 k = 0; k < said.length; ++k) {
                if (said[k].revoked || !_covers(tag1, said[k].tag1) || !_covers(tag2, said[k].tag2)) continue;
                ++count;
                sum += said[k].value;
            }
        }
        if (count > 0) summaryValue = (sum * 100) / int128(uint128(count));
        summaryValueDecimals = 2;
    }

    /// @dev The agent may speak, but what is said is the owner's.
    function _requireRater(ReceiptedPayment calldata payment) private view returns (address owner) {
        address agent = payment.agent;
        uint64 settled = ReceiptedPayments.verify(registry, processors, payment).settled;
        if (payment.seq > settled) revert NotSettled(agent, payment.seq, settled);
        owner = registry.mandateOf(agent).owner;
        if (msg.sender != owner && msg.sender != agent) revert OnlyOwnerOrAgent(msg.sender, owner, agent);
        address payee = payment.line.payee;
        if (payee == owner || payee == agent) revert OwnPayee(payee);
    }

    function _feedbackOf(
        uint256 agentId,
        address client,
        uint64 feedbackIndex
    ) private view returns (Feedback storage) {
        Feedback[] storage said = _feedback[agentId][client];
        if (feedbackIndex == 0 || feedbackIndex > said.length) revert NoFeedback(agentId, client, feedbackIndex);
        return said[feedbackIndex - 1];
    }

    function _requireText(string calldata text, uint256 limit) private pure {
        if (bytes(text).length > limit) revert TextTooLong(bytes(text).length, limit);
    }

    function _covers(string calldata wanted, string storage tag) private pure returns (bool) {
        return bytes(wanted).length == 0 || keccak256(bytes(wanted)) == keccak256(bytes(tag));
    }
}
