// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strconv"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
)

// outlierStats are the ends of Envoy's names, by breaker.EjectionType.
var outlierStats = [breaker.EjectionTypes]string{
	"consecutive_5xx", "consecutive_gateway_failure", "consecutive_local_origin_failure", "success_rate",
	"local_origin_success_rate", "failure_percentage", "local_origin_failure_percentage",
}

func (s *sampler) outlier(o *breaker.Outlier) {
	if o == nil {
		return
	}
	st := o.Stats()
	const scope = "outlier_detection.ejections_"
	s.add(scope+"active", "Endpoints that are ejected now.", gauge, uint64(st.Active))
	s.add(scope+"overflow", "Endpoints not ejected because too many were.", counter, st.Overflow)
	s.add(scope+"enforced_total", "Endpoints ejected.", counter, st.Enforced)
	for i, reason := range outlierStats {
		s.add(scope+"detected_"+reason, "Endpoints found to fail, ejected or not.", counter, st.Detected[i])
		s.add(scope+"enforced_"+reason, "Endpoints ejected.", counter, st.ByType[i])
	}
	// Envoy's older names, which dashboards still use.
	s.add(scope+"total", "Endpoints found to fail by 5xx in a row or their success rate, as far as not too many were.", counter, st.Total)
	s.add(scope+"consecutive_5xx", "Endpoints found to fail by 5xx in a row.", counter, st.Detected[breaker.Consecutive5xx])
	s.add(scope+"success_rate", "Endpoints found to fail by their success rate.", counter, st.Detected[breaker.SuccessRate]+st.Detected[breaker.SuccessRateLocal])
}

// Percentage is a share in percent; nil where there was too little to judge.
type Percentage struct {
	Value float64 `json:"value"`
}

func percentage(v float64) *Percentage {
	if v < 0 {
		return nil
	}
	return &Percentage{v}
}

// text is how Envoy writes it: -1 where there is none.
func (p *Percentage) text() string {
	if p == nil {
		return "-1"
	}
	return strconv.FormatFloat(p.Value, 'g', 6, 64)
}

// OutlierRates are what outlier detection judged success rates by last.
type OutlierRates struct {
	average, localAverage *Percentage
	Threshold             *Percentage `json:"success_rate_ejection_threshold,omitempty"`
	LocalThreshold        *Percentage `json:"local_origin_success_rate_ejection_threshold,omitempty"`
}

// HostRates are an endpoint's share of successes in the last interval.
type HostRates struct {
	SuccessRate      *Percentage `json:"success_rate,omitempty"`
	LocalSuccessRate *Percentage `json:"local_origin_success_rate,omitempty"`
}

// rate adds what outlier detection knows.
func (s *ClusterStatus) rate(spec *clusterSpec) {
	o := spec.outlier
	if o == nil {
		return
	}
	c, local := o.ClusterRates()
	s.OutlierRates = OutlierRates{percentage(c.Average), percentage(local.Average), percentage(c.Threshold), percentage(local.Threshold)}
	for i, h := range spec.lb.View().Hosts() {
		if i < len(s.Hosts) {
			external, local := o.SuccessRates(h)
			s.Hosts[i].HostRates = HostRates{percentage(external), percentage(local)}
		}
	}
}

func (r *OutlierRates) lines(line func(key string, value any)) {
	line("outlier::success_rate_average", r.average.text())
	line("outlier::success_rate_ejection_threshold", r.Threshold.text())
	line("outlier::local_origin_success_rate_average", r.localAverage.text())
	line("outlier::local_origin_success_rate_ejection_threshold", r.LocalThreshold.text())
}

func (r *HostRates) lines(line func(key, value string)) {
	line("success_rate", r.SuccessRate.text())
	line("local_origin_success_rate", r.LocalSuccessRate.text())
}
