// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"google.golang.org/grpc/codes"
	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
)

// grpcStatuses are the names that Istio knows, as in gRPC's own list.
var grpcStatuses = map[string]codes.Code{
	"OK": codes.OK, "CANCELLED": codes.Canceled, "UNKNOWN": codes.Unknown, "INVALID_ARGUMENT": codes.InvalidArgument,
	"DEADLINE_EXCEEDED": codes.DeadlineExceeded, "NOT_FOUND": codes.NotFound, "ALREADY_EXISTS": codes.AlreadyExists,
	"PERMISSION_DENIED": codes.PermissionDenied, "RESOURCE_EXHAUSTED": codes.ResourceExhausted,
	"FAILED_PRECONDITION": codes.FailedPrecondition, "ABORTED": codes.Aborted, "OUT_OF_RANGE": codes.OutOfRange,
	"UNIMPLEMENTED": codes.Unimplemented, "INTERNAL": codes.Internal, "UNAVAILABLE": codes.Unavailable,
	"DATA_LOSS": codes.DataLoss, "UNAUTHENTICATED": codes.Unauthenticated,
}

// fault translates what is done to requests before they are forwarded; nil is nothing. A
// share that is not given is none.
func (h *httpTranslation) fault(field string, in *networking.HTTPFaultInjection) *model.Fault {
	out := model.Fault{}
	if d := in.GetDelay(); d != nil {
		if share := delayShare(d); d.GetExponentialDelay() != nil {
			h.n.surprising(field+".delay.exponentialDelay", "no-effect",
				"delays have a fixed length: requests are not delayed, as in Istio", "use fixedDelay")
		} else if share > 0 && d.GetFixedDelay() != nil {
			out.Delay, out.DelayPerMillion = duration(d.GetFixedDelay()), share
		}
	}
	if a := in.GetAbort(); a != nil {
		share := perMillion(a.GetPercentage())
		switch e := a.GetErrorType().(type) {
		case *networking.HTTPFaultInjection_Abort_HttpStatus:
			out.AbortStatus, out.AbortPerMillion = uint32(e.HttpStatus), share
		case *networking.HTTPFaultInjection_Abort_GrpcStatus:
			out.AbortGRPC, out.AbortPerMillion = uint32(grpcStatuses[e.GrpcStatus]), share
		case *networking.HTTPFaultInjection_Abort_Http2Error:
			h.n.surprising(field+".abort.http2Error", "no-effect",
				"requests are aborted with a status: none is aborted with an error of HTTP/2, as in Istio", "use httpStatus or grpcStatus")
		}
	}
	if out.AbortPerMillion == 0 {
		out.AbortStatus, out.AbortGRPC = 0, 0
	}
	if out == (model.Fault{}) {
		return nil
	}
	return &out
}

func delayShare(d *networking.HTTPFaultInjection_Delay) uint32 {
	if d.GetPercentage() != nil {
		return perMillion(d.GetPercentage())
	}
	return uint32(max(0, d.GetPercent())) * perPercent // deprecated, still read
}
