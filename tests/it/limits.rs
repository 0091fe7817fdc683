//! Limits as commands: one behaviour suite, run over every implementation of `store::Commands`.
//!
//! A backend joins by implementing `suite::Rig` and naming itself in `behaviours!`.

mod fleet;
mod local;
mod redis;
mod suite;

/// One test for each behaviour of the suite, over this rig.
macro_rules! behaviours {
    ($rig:ty) => {
        crate::limits::behaviours! { $rig:
            a_window_admits_its_limit_and_says_when_more_fits,
            a_bucket_refills_and_says_when_more_fits,
            a_budget_counts_in_its_period_only,
            a_budget_whose_period_was_redefined_keeps_what_was_spent,
            permits_are_as_many_as_the_limit_and_come_back,
            permits_of_requests_outlive_their_attempts,
            permits_of_a_holder_that_died_come_back_with_its_lease,
            a_renewed_permit_is_registered_again_even_above_the_limit,
            a_refusal_by_any_limit_changes_none,
            what_is_above_a_limit_never_fits_and_a_limit_of_zero_refuses_all,
            tags_and_scopes_and_limits_count_apart,
            a_resent_admission_is_a_duplicate_and_counts_once,
            a_late_admission_changes_nothing,
            an_id_stays_known_until_its_deadline_though_it_is_settled,
            a_settle_corrects_to_the_truth_once,
            a_debt_is_worked_off_before_anything_is_admitted,
            a_cancelled_admission_gives_everything_back,
            a_refund_of_a_slot_that_left_is_dropped_and_an_excess_counts_now,
            a_batch_is_applied_once_and_an_older_one_never,
            what_was_admitted_elsewhere_is_charged_without_a_check,
            a_member_is_topped_up_once_a_step,
            a_top_up_that_does_not_fit_takes_nothing,
            a_lost_member_is_settled_as_reserved_once,
            a_truth_that_comes_late_takes_the_estimate_back,
            a_renewed_member_does_not_lapse_and_a_settled_one_stays_gone,
            usage_adds_up_by_row_and_hour,
            another_limit_keeps_the_count,
            another_window_starts_from_what_was_used
        }
    };
    ($rig:ty: $($behaviour:ident),+) => {
        $(
            #[test]
            fn $behaviour() {
                crate::limits::on_a_worker(async {
                    let rig = <$rig as crate::limits::suite::Rig>::fresh().await;
                    crate::limits::suite::$behaviour(&rig).await;
                });
            }
        )+
    };
}
use behaviours;

/// Runs a test where a worker's connections can be kept.
fn on_a_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), test);
}
