// SPDX-License-Identifier: Apache-2.0

package istio

import "maps"

// policyLevels are where a traffic policy may stand in a rule, and the rule around it.
var policyLevels = map[string]func(policy string) string{
	"trafficPolicy": func(p string) string {
		return `{host: web, trafficPolicy: {` + p + `}, subsets: [{name: v1, labels: {version: v1}}]}`
	},
	"trafficPolicy.portLevelSettings": func(p string) string {
		return `{host: web, trafficPolicy: {portLevelSettings: [{port: {number: 80}, ` + p + `}]}, subsets: [{name: v1, labels: {version: v1}}]}`
	},
	"subsets.trafficPolicy": func(p string) string {
		return `{host: web, subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {` + p + `}}]}`
	},
	"subsets.trafficPolicy.portLevelSettings": func(p string) string {
		return `{host: web, subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {portLevelSettings: [{port: {number: 80}, ` + p + `}]}}]}`
	},
}

// policyBases are the company in which a field of a policy matters, by its path in it.
var policyBases = map[string]string{
	"":                                       `connectionPool: {tcp: {maxConnections: 1}}`,
	"loadBalancer.consistentHash":            `loadBalancer: {consistentHash: {httpHeaderName: x-user}}`,
	"loadBalancer.consistentHash.httpCookie": `loadBalancer: {consistentHash: {httpCookie: {name: session, attributes: [{name: SameSite}]}}}`,
	"loadBalancer.warmup":                    `loadBalancer: {warmup: {duration: 60s}}`,
	"loadBalancer.localityLbSetting.distribute":       `loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 100}}]}}`,
	"loadBalancer.localityLbSetting.failover":         `outlierDetection: {interval: 1s}, loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}`,
	"loadBalancer.localityLbSetting.failoverPriority": `outlierDetection: {interval: 1s}, loadBalancer: {localityLbSetting: {enabled: true}}`,
	"loadBalancer.localityLbSetting.enabled":          `outlierDetection: {interval: 1s}`,
	"loadBalancer.zoneAwareLbSetting.failover":        `loadBalancer: {zoneAwareLbSetting: {failover: [{from: a, to: b}]}}`,
	"loadBalancer.zoneAwareLbSetting.enabled":         `loadBalancer: {zoneAwareLbSetting: {failover: [{from: a, to: b}]}}`,
	"outlierDetection":                                `outlierDetection: {interval: 1s}`,
	"outlierDetection.consecutiveLocalOriginFailures": `outlierDetection: {splitExternalLocalOriginErrors: true}`,
	"connectionPool.http.http2KeepAlive":              `connectionPool: {http: {http2KeepAlive: {interval: 60s, timeout: 30s}}}`,
	"retryBudget":                                     `retryBudget: {}`,
	"proxyProtocol":                                   `connectionPool: {tcp: {maxConnections: 1}}`,
	"tunnel":                                          `tunnel: {targetHost: other.example.com, targetPort: 443}`,
	"portLevelSettings":                               `portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 1}}}]`,
}

// policyValues are values for fields of policies, by the end of their path.
var policyValues = map[string]string{
	"h2UpgradePolicy":     `"UPGRADE" | ="DO_NOT_UPGRADE"`,
	"loadBalancer.simple": `"RANDOM" | "ROUND_ROBIN" | "PASSTHROUGH" | ="LEAST_REQUEST" | ="LEAST_CONN" | ="UNSPECIFIED"`, "tls.mode": `"SIMPLE"`,
	"consistentHash.maglev.tableSize": `65537`, "consistentHash.httpHeaderName": `"x-other"`,
	"localityLbSetting.distribute.from": `"c/*"`, "localityLbSetting.distribute.to": `{"c": 100}`,
	"localityLbSetting.failover.from": `"c"`, "localityLbSetting.failover.to": `"c"`,
	"zoneAwareLbSetting.failover.from": `"c"`, "zoneAwareLbSetting.failover.to": `"c"`,
	"localityLbSetting.enabled": `false`, "zoneAwareLbSetting.enabled": `false`,
	"localityLbSetting.failoverPriority": `["topology.kubernetes.io/region"]`, "zoneAwareLbSetting.failoverPriority": `["app=a"]`,
	"outlierDetection.outlierDetectionHttpErrorCodes": `[429]`,
	"proxyProtocol.version":                           `"V2" | "V1"`,
	"outlierDetection.consecutive5xxErrors":           `7 | 0`,
	"outlierDetection.consecutiveGatewayErrors":       `7 | =0`,
	"outlierDetection.splitExternalLocalOriginErrors": `true | =false`,
	"outlierDetection.maxEjectionPercent":             `7 | 100`,
	"outlierDetection.minHealthPercent":               `7 | =0`,
	"connectionPool.http.useClientProtocol":           `true | =false`,
	"tunnel.targetHost":                               `"target.example.com"`,
	"tunnel.protocol":                                 `"POST" | ="CONNECT"`,
	"portLevelSettings.port.number":                   `8080`,
	"workloadSelector.matchLabels":                    `{"app": "a"}`,
}

// ruleBases are those of DestinationRules: policies at every level.
func ruleBases() map[string]string {
	out := map[string]string{"": `{host: web, subsets: [{name: v1, labels: {version: v1}}]}`}
	for level, around := range policyLevels {
		for path, company := range policyBases {
			if path == "portLevelSettings" || path == "retryBudget" || path == "proxyProtocol" || path == "tunnel" {
				if level == "trafficPolicy.portLevelSettings" || level == "subsets.trafficPolicy.portLevelSettings" {
					continue // the settings of a port have none
				}
			}
			key := level
			if path != "" {
				key += "." + path
			}
			if _, ok := out[key]; !ok || path != "portLevelSettings" {
				out[key] = around(company)
			}
		}
	}
	return out
}

// ruleValues are those of DestinationRules.
func ruleValues() map[string]string {
	out := map[string]string{"host": `"api"`, "exportTo": `["."]`, "subsets.name": `"v9"`}
	maps.Copy(out, policyValues)
	return out
}
