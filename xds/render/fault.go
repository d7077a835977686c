// SPDX-License-Identifier: Apache-2.0

package render

import (
	"errors"
	"fmt"

	fault "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	httpfault "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"fairlead.io/fairlead/model"
)

// lastGRPCStatus is Unauthenticated.
const lastGRPCStatus = 16

// faults is what the client's stage does to requests of a route; nil if it does nothing.
func faults(f *model.Fault) (*httpfault.HTTPFault, error) {
	// Clients could have counters made, by a header.
	m := &httpfault.HTTPFault{DisableDownstreamClusterStats: true}
	if f.DelayPerMillion > 0 {
		if f.Delay <= 0 {
			return nil, fmt.Errorf("delay of %s", f.Delay)
		}
		m.Delay = &fault.FaultDelay{
			FaultDelaySecifier: &fault.FaultDelay_FixedDelay{FixedDelay: atLeastMS(f.Delay)},
			Percentage:         perMillion(f.DelayPerMillion),
		}
	}
	if f.AbortPerMillion > 0 {
		m.Abort = &httpfault.FaultAbort{Percentage: perMillion(f.AbortPerMillion)}
		switch {
		case f.AbortStatus != 0 && f.AbortGRPC != 0:
			return nil, errors.New("abort with a status of HTTP and one of gRPC")
		case f.AbortStatus != 0:
			m.Abort.ErrorType = &httpfault.FaultAbort_HttpStatus{HttpStatus: f.AbortStatus}
		case f.AbortGRPC <= lastGRPCStatus:
			m.Abort.ErrorType = &httpfault.FaultAbort_GrpcStatus{GrpcStatus: f.AbortGRPC}
		default:
			return nil, fmt.Errorf("abort with gRPC status %d", f.AbortGRPC)
		}
	}
	if m.Delay == nil && m.Abort == nil {
		return nil, nil
	}
	if max(f.DelayPerMillion, f.AbortPerMillion) > million {
		return nil, fmt.Errorf("fault for %d and %d of a million", f.DelayPerMillion, f.AbortPerMillion)
	}
	return m, nil
}

const million = 1_000_000

func perMillion(n uint32) *typev3.FractionalPercent {
	return &typev3.FractionalPercent{Numerator: n, Denominator: typev3.FractionalPercent_MILLION}
}
