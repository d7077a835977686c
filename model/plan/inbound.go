// SPDX-License-Identifier: Apache-2.0

package plan

// OnlyInbound needs the request, from the inbound listener of the pod's own node and
// no other proxy: there it is routed and counted, too.
const OnlyInbound Action = "inbound"
