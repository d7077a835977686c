// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"net/http"
	"slices"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
)

// redirectCodes are those that Envoy can answer with.
var redirectCodes = []uint32{
	http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect,
}

// redirect translates a redirection; nil if it is one that cannot be answered.
func (h *httpTranslation) redirect(field string, in *networking.HTTPRedirect) *model.Redirect {
	out := &model.Redirect{Status: in.GetRedirectCode(), Scheme: in.GetScheme(), Host: in.GetAuthority(), Port: h.redirectPort(in), Path: in.GetUri()}
	if out.Status == 0 {
		out.Status = http.StatusMovedPermanently
	}
	if !slices.Contains(redirectCodes, out.Status) {
		h.n.refused(field+".redirectCode", "unsupported-status", model.Narrows,
			fmt.Sprintf("%d is not one of %v: the route answers %d", out.Status, redirectCodes, invalidStatus), "use one of them")
		return nil
	}
	if p := in.GetPrefixRewrite(); p != "" {
		out.Path, out.Prefix = "", &p
	}
	return out
}

// redirectPort is the port to be written, 0 if none is. Istio leaves out what the scheme
// means anyway; Envoy then keeps what the request names, if no other host is given.
func (h *httpTranslation) redirectPort(in *networking.HTTPRedirect) uint16 {
	port := uint16(in.GetPort())
	if in.GetDerivePort() == networking.HTTPRedirect_FROM_REQUEST_PORT {
		port = h.port
	}
	if port == 80 && in.GetScheme() != "https" || port == 443 && in.GetScheme() == "https" {
		return 0
	}
	return port
}
