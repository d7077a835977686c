// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"slices"

	data "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// flagWords are the words of Envoy's %RESPONSE_FLAGS%, by field of the message
// that stands for them in gRPC logs.
var flagWords = map[protoreflect.Name]string{
	"failed_local_healthcheck":             "LH",
	"no_healthy_upstream":                  "UH",
	"upstream_request_timeout":             "UT",
	"local_reset":                          "LR",
	"upstream_remote_reset":                "UR",
	"upstream_connection_failure":          "UF",
	"upstream_connection_termination":      "UC",
	"upstream_overflow":                    "UO",
	"no_route_found":                       "NR",
	"delay_injected":                       "DI",
	"fault_injected":                       "FI",
	"rate_limited":                         "RL",
	"unauthorized_details":                 "UAEX",
	"rate_limit_service_error":             "RLSE",
	"downstream_connection_termination":    "DC",
	"upstream_retry_limit_exceeded":        "URX",
	"stream_idle_timeout":                  "SI",
	"invalid_envoy_request_headers":        "IH",
	"downstream_protocol_error":            "DPE",
	"upstream_max_stream_duration_reached": "UMSDR",
	"response_from_cache_filter":           "RFCF",
	"no_filter_config_found":               "NFCF",
	"duration_timeout":                     "DT",
	"upstream_protocol_error":              "UPE",
	"no_cluster_found":                     "NC",
	"overload_manager":                     "OM",
	"dns_resolution_failure":               "DF",
	"downstream_remote_reset":              "DR",
}

// flags lists what is set, sorted. A flag that is newer than the table keeps the
// name of its field.
func flags(f *data.ResponseFlags) []string {
	var words []string
	f.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		w, ok := flagWords[fd.Name()]
		if !ok {
			w = string(fd.Name())
		}
		words = append(words, w)
		return true
	})
	slices.Sort(words)
	return words
}
